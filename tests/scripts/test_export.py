"""``pgtoolkit export``: files that other programs load, and requests that are refused."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pgtoolkit
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.exporting.formats import FORMATS

ROOT = Path(__file__).parents[2]
LOADERS = dict(
    zip(
        (".onnx", ".pt2", "row"),
        re.findall(r"^```py\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.M | re.S),
        strict=True,
    )
)
"""The loaders of the documentation, and its row of a dictionary."""

MISSING = [name for name in FORMATS[".onnx"].packages if not importlib.util.find_spec(name)]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} are not installed")
BOTH = [pytest.param(".onnx", marks=needs_onnx), ".pt2"]

CLOCK = """
import gymnasium
import numpy as np


class Clock(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3)
    time = 1.7e9

    def _observation(self):
        return np.array([self.time, np.sin(self.time)])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 1.7e9 + self.np_random.uniform(0, 10)
        return self._observation(), {}

    def step(self, action):
        self.time += 0.7
        reward = float(action == int(self.time) % 3)
        return self._observation(), reward, False, self.time > 1.7e9 + 15, {}
"""


def call(*arguments: str) -> int:
    """The exit code of ``pgtoolkit ARGUMENTS``, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(cli.run_arguments, arguments)
    return int(caught.value.code or 0)


def train(path: Path, agent: str, env: str, *more: str) -> None:
    arguments = ["--total-steps", "240", "--num-envs", "4", "--n-steps", "20", "--hidden", "8"]
    arguments += ["--eval-episodes", "2", "--env", env, "--run-dir", str(path)]
    assert call("train", agent, *arguments, *more) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the pendulum."""
    path = tmp_path_factory.mktemp("runs") / "shac"
    train(path, "shac", "pgtoolkit/Pendulum-v0")
    return path


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with discrete actions, on an environment whose time is 1.7e9 s."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.py").write_text(CLOCK)
    more = ("--normalize-observations", "--batch-size", "20")
    train(folder / "run", "ppo", f"{folder}/clock.py:Clock", *more)
    return folder / "run"


def load_elsewhere(suffix: str, folder: Path, rows: np.ndarray) -> dict[str, Any]:
    """Runs the documentation's loader in a process that cannot import pgtoolkit.

    Returns:
        The metadata, and the actions of all rows at a time and of the first row alone.
    """
    np.save(folder / "rows.npy", rows)
    code = "import sys\nsys.modules['pgtoolkit'] = None\n" + LOADERS[suffix]
    code += """
rows = __import__("numpy").load("rows.npy")
found = {"actions": predict(rows).tolist(), "first": predict(rows[:1]).tolist()}
print(json.dumps({"about": dict(about), **found}))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(output)
    about = found["about"]
    for name in ("observation", "action"):
        about[name] = json.loads(about[name]) if isinstance(about[name], str) else about[name]
    return found


def agents_actions(run: Path, rows: np.ndarray) -> np.ndarray:
    """The deterministic actions of the run's best policy, from its own file."""
    from pgtoolkit.scripts.cli.experiment import Experiment, load_policy, settings_from_file
    from pgtoolkit.training.run_folder import RunFolder

    folder, config = RunFolder.open(run)
    settings = settings_from_file(config, [], command="test")
    env = Experiment(settings).environments.make_for_evaluation(1)
    policy = load_policy(folder.read_policy("best"), settings, env)
    with torch.no_grad():
        found: np.ndarray = policy(torch.from_numpy(rows)).mode.numpy()
    return found


PARTS = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class Parts(gymnasium.Env):
    body = Dict({"angle": Box(-9, 9, (1,))})
    observation_space = Dict({"speed": Box(-1, 1, (2, 1)), "body": body})
    action_space = Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def _observation(self):
        speed, angle = self.np_random.uniform(-1, 1, (2, 1)), self.np_random.normal(size=1)
        return {"speed": np.float32(speed), "body": {"angle": np.float32(angle)}}

    def step(self, action):
        self.steps += 1
        return self._observation(), -float(action[0]) ** 2, False, self.steps >= 10, {}
"""


def test_the_documentations_row_is_that_which_the_policy_reads(tmp_path: Path) -> None:
    """It and ``predict`` make the same row of a dictionary."""
    (tmp_path / "parts.py").write_text(PARTS)
    train(tmp_path / "run", "ppo", f"{tmp_path}/parts.py:Parts", "--batch-size", "20")
    assert call("export", str(tmp_path / "run"), "--output", str(tmp_path / "policy.pt2")) == 0
    files = {"metadata.json": ""}
    policy = torch.export.load(tmp_path / "policy.pt2", extra_files=files).module()
    about = json.loads(files["metadata.json"])
    names = {"np": np, "json": json, "about": {"observation": json.dumps(about["observation"])}}
    exec(LOADERS["row"], names)
    speed, angle = np.array([[0.1], [0.2]], np.float32), np.array([0.3], np.float32)
    row = names["row"]({"speed": speed, "body.angle": angle})  # type: ignore[operator]
    assert row.tolist() == np.array([0.3, 0.1, 0.2], np.float32).tolist()
    found = policy(torch.from_numpy(row)[None]).numpy()[0]
    own = pgtoolkit.load(tmp_path / "run").policy
    expected = own.predict({"speed": speed, "body": {"angle": angle}})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", BOTH)
def test_the_documentations_loader_acts_as_the_agent_without_pgtoolkit(
    suffix: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On 1,000 observations in the space, and beyond; the metadata say what they are."""
    assert call("export", str(run), "--output", str(tmp_path / f"policy{suffix}")) == 0
    said = capsys.readouterr().out
    assert "observation [N, 3] float32 -> action [N, 1] float32, of pgtoolkit/Pendulum-v0" in said
    assert "on 1,000 observations" in said and "best.safetensors" in said
    largest = re.search(r"the largest difference is (\S+) ", said)
    assert largest is not None and float(largest[1]) <= 1e-5
    rows = np.random.default_rng(0).normal(0, 2, (1000, 3)).astype(np.float32)
    found = load_elsewhere(suffix, tmp_path, rows)
    expected = agents_actions(run, rows)
    np.testing.assert_allclose(found["actions"], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["first"], expected[:1], rtol=0, atol=1e-5)
    about = found["about"]
    assert (about["env"], about["agent"]) == ("pgtoolkit/Pendulum-v0", "shac")
    assert about["observation"]["shape"] == ["N", 3] and about["action"]["high"] == 2.0


@pytest.mark.parametrize("suffix", BOTH)
def test_the_loader_tells_large_numbers_apart_and_chooses(
    suffix: str, clock: Path, tmp_path: Path
) -> None:
    """A float64 input: in float32 all of these times would be one, and so would the actions."""
    assert call("export", str(clock), "--output", str(tmp_path / f"policy{suffix}")) == 0
    time = 1.7e9 + np.linspace(0, 20, 1000)
    rows = np.stack([time, np.sin(time)], -1)
    found = load_elsewhere(suffix, tmp_path, rows)
    assert found["about"]["env"] == "clock.py:Clock"
    assert found["about"]["observation"]["dtype"] == "float64"
    assert found["about"]["action"]["categories"] == 3
    np.testing.assert_array_equal(found["actions"], agents_actions(clock, rows))
    assert len(set(found["actions"])) > 1


def test_the_last_policy_is_exported_on_request(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "last.PT2")
    assert call("export", str(run), "--output", output, "--checkpoint", "last") == 0
    assert "last.safetensors" in capsys.readouterr().out
    with_last = FORMATS[".pt2"].load(Path(output).read_bytes())
    assert with_last(np.zeros((1, 3), np.float32)).shape == (1, 1)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("policy.pt", "--output must end in .onnx or .pt2, not policy.pt"),
        ("policy", "--output must end in"),
        ("no/such/policy.pt2", "cannot be written (No such file or directory): give another path"),
        ("there.pt2", "exists already: give another path, or remove it"),
        ("folder.onnx", "exists already"),
        ("dangling.pt2", "exists already"),
        ("there.pt2/policy.pt2", "cannot be written (Not a directory)"),
    ],
)
def test_a_file_that_cannot_be_new_is_refused(
    output: str,
    words: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt2").write_text("mine")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "dangling.pt2").symlink_to("nowhere")
    assert call("export", str(run), "--output", output) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert (tmp_path / "there.pt2").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "dangling.pt2",
        "folder.onnx",
        "there.pt2",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere holds no run"),
        ([], "needs the run's folder"),
        (["RUN", "--checkpoint", "first"], "first"),
    ],
)
def test_a_wrong_request_is_refused(
    arguments: list[str],
    words: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(run) if word == "RUN" else word for word in arguments]
    assert call("export", *given, "--output", str(tmp_path / "policy.pt2")) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_done(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert call("export", str(run), "--output", str(tmp_path / "policy.onnx")) == 2
    error = capsys.readouterr().err
    assert "needs onnx: python -m pip install" in error and "FILE.pt2" in error
    assert list(tmp_path.iterdir()) == []


def test_a_mismatch_ends_with_1_and_leaves_no_file(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exported graph has another bias than the agent."""
    encode = FORMATS[".pt2"].encode

    def altered(graph: Any, *rest: Any) -> bytes:
        graph.policy.head.output.bias.add_(1e-2)
        return encode(graph, *rest)

    monkeypatch.setitem(FORMATS, ".pt2", FORMATS[".pt2"]._replace(encode=altered))
    assert call("export", str(run), "--output", str(tmp_path / "policy.pt2")) == 1
    error = capsys.readouterr().err
    assert "differ from the agent's by up to" in error and "no file is left" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_code_that_a_strangers_run_names_is_not_run(
    clock: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    output = tmp_path / "policy.pt2"
    assert call("export", str(clock), "--output", str(output)) == 2
    assert "give --trust" in capsys.readouterr().err and not output.exists()
    assert call("export", str(clock), "--output", str(output), "--trust") == 0
    assert output.exists() and str(clock.parent).encode() not in output.read_bytes()


def test_the_loaders_have_ten_lines_and_need_no_pgtoolkit() -> None:
    for code in LOADERS.values():
        assert len([line for line in code.splitlines() if line.strip()]) <= 10
        assert "pgtoolkit" not in code
