"""Other packages' environments, and what the commands say of each."""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.files import write_json
from pgtoolkit.scripts.cli.formatting import markdown_row

CHECK_FLAGS = ("--seconds", "1")
TRAIN_FLAGS = (
    "--total-steps",
    "1024",
    "--num-envs",
    "2",
    "--n-steps",
    "128",
    "--eval-episodes",
    "2",
)
EVALUATE_FLAGS = ("--episodes", "2")

HEADINGS = ("environment", "flags", "package", "check-env", "train ppo", "evaluate")


@final
class ThirdPartyEnv(NamedTuple):
    """An environment of another package, and how it is named on the command line."""

    env: str
    """Value of ``--env``."""
    package: str
    """Name of the distribution that has it."""
    flags: tuple[str, ...] = ()
    """Further flags that it needs, such as ``--env-kwargs``."""

    @property
    def command(self) -> str:
        """``--env`` and further flags, as one types them."""
        return " ".join([self.env, *(quoted(word) for word in self.flags)])


LINEAR_REWARD = ("--gym-wrappers", '{"mo_gymnasium.wrappers:LinearReward": {}}')
RAM = ("--env-kwargs", '{"obs_type": "ram"}')
REACH = ("--env-kwargs", '{"env_name": "reach-v3"}')

ENVS = (
    ThirdPartyEnv("BipedalWalker-v3", "Box2D"),
    ThirdPartyEnv("LunarLander-v3", "Box2D"),
    ThirdPartyEnv("CliffWalking-v1", "gymnasium"),
    ThirdPartyEnv("Taxi-v4", "gymnasium"),
    ThirdPartyEnv("Blackjack-v1", "gymnasium"),
    ThirdPartyEnv("minigrid:MiniGrid-Empty-5x5-v0", "minigrid"),
    ThirdPartyEnv("minigrid:MiniGrid-DoorKey-8x8-v0", "minigrid"),
    ThirdPartyEnv("minigrid:BabyAI-GoToRedBall-v0", "minigrid"),
    ThirdPartyEnv("highway_env:highway-fast-v0", "highway-env"),
    ThirdPartyEnv("highway_env:parking-v0", "highway-env"),
    ThirdPartyEnv("gymnasium_robotics:FetchReach-v4", "gymnasium-robotics"),
    ThirdPartyEnv("gymnasium_robotics:PointMaze_UMaze-v3", "gymnasium-robotics"),
    ThirdPartyEnv("gymnasium_robotics:AdroitHandDoor-v1", "gymnasium-robotics"),
    ThirdPartyEnv("gymnasium_robotics:FrankaKitchen-v1", "gymnasium-robotics"),
    ThirdPartyEnv("shimmy:dm_control/cartpole-balance-v0", "dm-control"),
    ThirdPartyEnv("shimmy:dm_control/walker-walk-v0", "dm-control"),
    ThirdPartyEnv("metaworld:Meta-World/MT1", "metaworld", REACH),
    ThirdPartyEnv("panda_gym:PandaReach-v3", "panda-gym"),
    ThirdPartyEnv("PyFlyt.gym_envs:PyFlyt/QuadX-Hover-v4", "PyFlyt"),
    ThirdPartyEnv("ale_py:ALE/Pong-v5", "ale-py"),
    ThirdPartyEnv("ale_py:ALE/Pong-v5", "ale-py", RAM),
    ThirdPartyEnv("mo_gymnasium:mo-mountaincar-v0", "mo-gymnasium"),
    ThirdPartyEnv("mo_gymnasium:mo-mountaincar-v0", "mo-gymnasium", LINEAR_REWARD),
    ThirdPartyEnv("flappy_bird_gymnasium:FlappyBird-v0", "flappy-bird-gymnasium"),
    ThirdPartyEnv("gym_pusht:gym_pusht/PushT-v0", "gym-pusht"),
    ThirdPartyEnv("gym_anytrading:stocks-v0", "gym-anytrading"),
)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What the three commands said of one environment."""

    command: str
    """The environment with its flags, as one types them."""
    package: str
    """Its distribution and version, and MuJoCo's version where the distribution needs it."""
    check: str
    """Number of faults, of warnings, and of checks that were not possible; or the refusal."""
    train: str
    """``yes``, or the refusal."""
    evaluate: str
    """``yes``, or the refusal."""
    faults: list[str]
    """The faults that ``check-env`` found."""


def find_rows(names: Sequence[str]) -> list[ThirdPartyEnv]:
    """The rows of these environments; without names those whose packages are installed.

    Raises:
        RequestError: the list has no such environment.
    """
    unknown = set(names) - {row.env for row in ENVS}
    if unknown:
        raise RequestError(f"the list has no {', '.join(sorted(unknown))}: see third_party_rows.py")
    wanted = [row for row in ENVS if not names or row.env in names]
    return wanted if names else [row for row in wanted if version_of(row.package)]


def version_of(package: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_trials(path: Path) -> list[Trial]:
    """The trials in a file; none if there is no file.

    Raises:
        RequestError: the file holds something else.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return [Trial(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise RequestError(f"{path} holds no trials of environments: name another file") from error


def complete(path: Path, rows: Sequence[ThirdPartyEnv], timeout: float) -> Iterator[Trial]:
    """Tries the environments that the file does not hold, and adds each when it is done.

    Yields:
        Each new trial.
    """
    trials = read_trials(path)
    for row in rows:
        if row.command in {trial.command for trial in trials}:
            continue
        trials.append(try_env(row, timeout))
        write_json(path, [dataclasses.asdict(trial) for trial in trials])
        yield trials[-1]


def try_env(row: ThirdPartyEnv, timeout: float) -> Trial:
    """Runs ``check-env``, ``train ppo`` and ``evaluate``, the last only after a training."""
    with tempfile.TemporaryDirectory() as folder:
        run, findings = Path(folder) / "run", Path(folder) / "findings.json"
        check = call(
            "check-env", row.env, *row.flags, *CHECK_FLAGS, "--json", str(findings), timeout=timeout
        )
        found = (
            json.loads(findings.read_text(encoding="utf-8") or "[]") if findings.exists() else []
        )
        place = ("--run-dir", str(run))
        train = call(
            "train", "ppo", "--env", row.env, *row.flags, *TRAIN_FLAGS, *place, timeout=timeout
        )
        evaluate = "-"
        if train == "yes":
            evaluate = call("evaluate", str(run), *EVALUATE_FLAGS, timeout=timeout)
    return Trial(
        command=row.command,
        package=package_text(row.package),
        check=check_text(found) if found else check,
        train=train,
        evaluate=evaluate,
        faults=[f"{f['check']}: {f['finding']}" for f in found if f["status"] == "fault"],
    )


def call(*arguments: str, timeout: float) -> str:
    """Runs a command of this package in a process of its own; returns its outcome.

    Returns:
        ``yes`` for exit 0, the error's sentence for exit 2, and what went wrong for any other end.
    """
    command = [sys.executable, "-m", "pgtoolkit.scripts.cli", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no end within {timeout:g} s"
    if done.returncode == 0:
        return "yes"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 2 and errors:
        return f"refused: {errors[-1].removeprefix('error: ')}"
    last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
    return f"exit {done.returncode}: {last}"


def check_text(findings: Sequence[dict[str, Any]]) -> str:
    """``1 fault, 2 warnings, 1 not checked``: the statuses that are not a pass, counted."""
    statuses = [finding["status"] for finding in findings]
    counts = {status: statuses.count(status) for status in ("fault", "warning", "not checked")}
    plural = {
        status: "s" if n > 1 and status != "not checked" else "" for status, n in counts.items()
    }
    found = [f"{n} {status}{plural[status]}" for status, n in counts.items() if n]
    return ", ".join(found) or "clean"


def package_text(package: str) -> str:
    """``dm-control 1.0.34, mujoco 3.3.7``: versions of the package and of MuJoCo if it needs it."""
    requirements = importlib.metadata.requires(package) or []
    needs_mujoco = any(t.startswith("mujoco") and "extra" not in t for t in requirements)
    names = [package, "mujoco"] if needs_mujoco and package != "gymnasium" else [package]
    return ", ".join(f"{name} {version_of(name)}" for name in names)


def quoted(word: str) -> str:
    """A word as a shell needs it: JSON in single quotes."""
    return f"'{word}'" if set(word) & set(' {}"') else word


def as_markdown(trials: Sequence[Trial]) -> str:
    """The table, in the order of the list, with a row for each trial."""
    order = [row.command for row in ENVS]
    known = sorted((t for t in trials if t.command in order), key=lambda t: order.index(t.command))
    rows = [markdown_row(HEADINGS), markdown_row(["---"] * len(HEADINGS))]
    return "\n".join([*rows, *(markdown_row(cells(trial)) for trial in known)])


def cells(trial: Trial) -> list[str]:
    """The cells of one environment under ``HEADINGS``."""
    env, _, flags = trial.command.partition(" ")
    texts = [trial.check, trial.train, trial.evaluate]
    plain = [text.replace("|", "\\|") for text in texts]
    return [f"`{env}`", f"`{flags}`" if flags else "", trial.package, *plain]
