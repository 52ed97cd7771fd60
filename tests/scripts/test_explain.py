"""``pgtoolkit explain``: injected faults, and where each began."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import explain, train
from pgtoolkit.training.checkpoint import save_checkpoint
from pgtoolkit.training.faults import flight_recorder

ENVS = Path(__file__).with_name("faulty_envs.py")
AT, WHICH = 9, 2
STEPS = 6
"""Steps of a window, so that the fault lies at step 3 of the second one."""
DIFFERENTIABLE, ORDINARY = ("shac", "apg"), ("ppo", "reinforce", "a2c", "reppo")

Change = Callable[[Any], None]
"""Changes an agent between two updates."""


class Case(NamedTuple):
    """A fault, and the address that must be named."""

    name: str
    agent: str
    env: str
    change: Change | None
    expected: dict[str, Any]
    flags: tuple[str, ...] = ()
    at: int = AT


def small(agent: str, at: int) -> list[str]:
    """Flags of a tiny run, long enough for a fault at step ``at``."""
    flags = ["--n-steps", str(STEPS), "--num-envs", "4", "--hidden", "8"]
    flags += ["--total-steps", str(4 * (at + 31))]
    flags += ["--eval-interval", "0", "--checkpoint-interval", "100000", "--diagnostics-interval"]
    flags += ["0"]
    if agent in ("shac", "reinforce"):
        flags += ["--vf-epochs", "1", "--vf-minibatches", "1"]
    if agent in ("ppo", "reppo"):
        flags += ["--n-epochs", "1", "--batch-size", "8", "--compile", "never"]
    return flags + (["--compile", "never"] if agent in DIFFERENTIABLE else [])


def train_to_a_fault(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains until the fault; the agent is changed before its third window."""
    from pgtoolkit.training.faults.flight_recorder import FlightRecorder

    # The state is copied before the first and the fourth window, however long a copy takes.
    monkeypatch.setattr(FlightRecorder, "_count", lambda self, _: setattr(self, "stride", 3))
    if case.change is not None:
        change, begin = case.change, FlightRecorder._begin

        def changed(self: FlightRecorder, progress: Any) -> None:
            if progress.num_updates == 2:
                change(self.agent)
            begin(self, progress)

        monkeypatch.setattr(FlightRecorder, "_begin", changed)
    name, _, fault = case.env.partition(":")
    # A copy of its own, so that its environments are counted from 0.
    file = shutil.copy(ENVS, folder.with_name("faulty_envs.py"))
    arguments = [case.agent, "--env", f"{file}:{name}", "--run-dir", str(folder)]
    arguments += [
        "--env-kwargs",
        json.dumps({"fault": fault, "at": case.at}),
        *small(case.agent, case.at),
        *case.flags,
    ]
    try:
        train.run(arguments)
    except Exception as error:
        assert not isinstance(error, RequestError), error
    monkeypatch.undo()


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """What the command says, as JSON; its text is printed too."""
    capsys.readouterr()
    explain.run([str(folder), "--json", str(folder / "explained.json"), *flags])
    found: dict[str, Any] = json.loads((folder / "explained.json").read_text())
    assert found["began"] is None or found["began"]["sentence"] in capsys.readouterr().out
    return found


def set_entry(path: str, value: float) -> Change:
    """Sets the first entry of a tensor of the agent."""

    def change(agent: Any) -> None:
        owner: Any = agent
        for part in path.split("."):
            owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
        with torch.no_grad():
            owner.view(-1)[0] = value

    return change


def set_moment(agent: Any) -> None:
    """Makes an entry of Adam's second moment of the policy's first parameter infinite."""
    if hasattr(agent, "minibatches"):
        sizes = {name: p.numel() for name, p in agent.minibatches.modules.named_parameters()}
        names = list(sizes)
        before = names[: names.index("policy.torso.0.weight")]
        agent.minibatches.state.square[sum(sizes[name] for name in before)] = math.inf
        return
    rule = agent.rule if hasattr(agent, "rule") else agent.learner.rule
    rule.optimizer.state[next(agent.policy.parameters())]["exp_avg_sq"].view(-1)[0] = math.inf


def bad_noise(agent: Any) -> None:
    """Puts a NaN into what the policy draws."""
    draw = agent.policy.draw_noise

    def drawn(*shape: int, generator: torch.Generator) -> torch.Tensor:
        noise: torch.Tensor = draw(*shape, generator=generator)
        noise[3, WHICH] = math.nan
        return noise

    object.__setattr__(agent.policy, "draw_noise", drawn)


HERE = {"step": AT - STEPS, "env_index": WHICH, "update": 2}
PARAMETER = {"tensor": "parameter", "parameter": "torso.0.weight", "update": 3}
MEAN = {"tensor": "buffer", "parameter": "normalizer.mean", "update": 3}
NORMALIZED = ("--normalize-observations",)
VALUE = {"shac": "value.module.network.0.weight", "ppo": "value_function.network.0.weight"}

CASES = [
    *(
        Case(name, agent, f"{env}:{name}", None, {"tensor": tensor, **HERE})
        for env, agents in (("Point", DIFFERENTIABLE), ("Line", ORDINARY))
        for agent in agents
        for name, tensor in (
            ("nan reward", "reward"),
            ("inf reward", "reward"),
            ("observation", "observation"),
            ("raises", "environment"),
        )
    ),
    *(
        Case("huge reward", agent, f"{env}:huge reward", None, {"tensor": "reward", **HERE})
        for env, agent in (("Point", "shac"), ("Line", "reinforce"), ("Line", "a2c"))
    ),
    *(
        Case(name, agent, f"Point:{name}", None, {"tensor": tensor, **HERE})
        for agent in DIFFERENTIABLE
        for name, tensor in (
            ("transition", "state"),
            ("square root", "derivative"),
            ("reward root", "derivative"),
            ("overflow", "reward"),
        )
    ),
    *(
        Case(
            "steep chain",
            agent,
            "Point:steep chain",
            None,
            {"tensor": "derivative", "env_index": WHICH, "update": 2, "step": AT + 1 - STEPS},
        )
        for agent in DIFFERENTIABLE
    ),
    Case(
        "reset",
        "shac",
        "Point:reset",
        None,
        {"tensor": "observation after a reset", "env_index": WHICH},
    ),
    Case(
        "reset",
        "ppo",
        "Line:reset",
        None,
        {"tensor": "observation after a reset", "env_index": WHICH, "step": 3, "update": 2},
    ),
    *(
        Case("parameter", agent, env, set_entry("policy.torso.0.weight", math.inf), PARAMETER)
        for env, agents in (("Point:none", DIFFERENTIABLE), ("Line:none", ORDINARY))
        for agent in agents
    ),
    *(
        Case(
            "normaliser",
            agent,
            env,
            set_entry("policy.normalizer.mean", math.nan),
            MEAN,
            NORMALIZED,
        )
        for env, agent in (("Point:none", "shac"), ("Line:none", "ppo"))
    ),
    *(
        Case(
            "moment",
            agent,
            env,
            set_moment,
            {"tensor": "moment", "parameter": "torso.0.weight", "update": 3},
        )
        for env, agents in (("Point:none", DIFFERENTIABLE), ("Line:none", ORDINARY))
        for agent in agents
    ),
    *(
        Case(
            "noise",
            agent,
            env,
            bad_noise,
            {"tensor": "noise", "step": 3, "env_index": WHICH, "update": 3},
        )
        for env, agent in (("Point:none", "shac"), ("Line:none", "ppo"))
    ),
    *(
        Case(
            "log std",
            agent,
            env,
            set_entry("policy.head.std.log_std", 1e3),
            {"tensor": "parameter", "parameter": "head.std.log_std", "update": 3},
        )
        for env, agent in (("Point:none", "shac"), ("Line:none", "ppo"))
    ),
    *(
        Case(
            "learning rate",
            agent,
            env,
            None,
            {"tensor": "parameter", "parameter": "torso.0.weight", "update": 1},
            ("--learning-rate", "1e38"),
        )
        for env, agent in (("Point:none", "shac"), ("Line:none", "reinforce"), ("Line:none", "a2c"))
    ),
]


SPIKE = 13 * STEPS + 2
"""A step of the fourteenth window: a spike needs ten norms to be compared with."""
MORE = [
    *(
        Case(name, agent, f"Point:{name}", None, {"tensor": tensor, **HERE})
        for agent in ORDINARY
        for name, tensor in (
            ("nan reward", "reward"),
            ("observation", "observation"),
            ("transition", "state"),
            ("raises", "environment"),
        )
    ),
    *(
        Case(
            "value",
            agent,
            env,
            set_entry(path, math.nan),
            {
                "tensor": "parameter",
                "parameter": path.partition(".")[2].removeprefix("module."),
                "update": 3,
            },
        )
        for env, agent, path in (
            ("Point:none", "shac", "value.module.network.0.weight"),
            ("Line:none", "ppo", "value_function.network.0.weight"),
            ("Line:none", "reinforce", "value.module.network.0.weight"),
            ("Line:none", "a2c", "value_function.network.0.weight"),
        )
    ),
    *(
        Case(
            "spike",
            agent,
            f"{env}:wall",
            None,
            {"tensor": tensor, "env_index": WHICH, "update": 14, "step": 2},
            (),
            SPIKE,
        )
        for env, agent, tensor in (
            ("Point", "shac", "gradient"),
            ("Point", "apg", "gradient"),
            ("Line", "reinforce", "reward"),
            ("Line", "a2c", "reward"),
        )
    ),
    Case(
        "compiled",
        "shac",
        "Point:nan reward",
        None,
        {"tensor": "reward", **HERE},
        ("--compile", "always"),
    ),
    Case(
        "compiled",
        "shac",
        "Point:square root",
        None,
        {"tensor": "derivative", **HERE},
        ("--compile", "always"),
    ),
    Case(
        "segments",
        "shac",
        "Point:square root",
        None,
        {"tensor": "derivative", **HERE},
        ("--checkpoint-every", "2"),
    ),
    Case(
        "episodes",
        "reinforce",
        "Line:nan reward",
        None,
        {"tensor": "reward", "env_index": WHICH},
        ("--rollout", "episodes"),
    ),
    Case(
        "small learning rate of values",
        "shac",
        "Point:none",
        None,
        {"tensor": "parameter", "update": 1},
        ("--vf-learning-rate", "1e38"),
    ),
    Case(
        "log std at first",
        "shac",
        "Point:none",
        None,
        {"parameter": "head.std.log_std"},
        ("--log-std-init", "1000"),
    ),
    Case(
        "mixed",
        "shac",
        "Point:square root",
        None,
        {"tensor": "derivative", **HERE},
        ("--estimator", "mixed", "--num-envs", "8", "--diagnostics-interval", "1"),
    ),
]


@pytest.mark.parametrize("case", CASES + MORE, ids=lambda case: f"{case.name}-{case.agent}")
def test_the_address_of_a_fault(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train_to_a_fault(case, folder, monkeypatch)
    found = explained(folder, capsys)
    began = found["began"]
    assert {key: began[key] for key in case.expected} == case.expected, began["sentence"]
    assert found["repeated"], found["replay"]


@pytest.mark.filterwarnings("error")
def test_a_reward_beyond_float32_is_told_with_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("", "ppo", "Line:reward beyond float32", None, {})
    train_to_a_fault(case, tmp_path / "run", monkeypatch)
    began = explained(tmp_path / "run", capsys)["began"]
    assert {key: began[key] for key in HERE} == HERE and began["tensor"] == "reward"
    assert "is 1e+39, which float32 cannot hold: the environment returned it" in began["sentence"]


# The command --------------------------------------------------------------------------------------


def make_fault(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, **more: Any) -> Path:
    """A run that stops at a reward that is NaN; returns the file of the fault."""
    case = Case("", "shac", "Point:nan reward", None, {}, flags, **more)
    train_to_a_fault(case, folder, monkeypatch)
    (path,) = folder.glob("fault-*.json")
    return path


def test_the_file_says_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second window fails, after 24 steps; JSON has no NaN."""
    folder = tmp_path / "run"
    path = make_fault(folder, monkeypatch)
    assert path.name == "fault-24.json" and path.with_suffix(".safetensors").is_file()
    fault = json.loads(path.read_text(), parse_constant=pytest.fail)
    known = {key: fault[key] for key in ("kind", "tensor", "step", "env_index", "num_updates")}
    assert known == {
        "kind": "non-finite",
        "tensor": "reward",
        "step": AT - STEPS,
        "env_index": WHICH,
        "num_updates": 1,
    }
    assert fault["look"] == f"pgtoolkit explain {folder} --fault fault-24.json"


def test_a_run_without_a_fault_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is the name of a file that is none, also one outside of the folder."""
    folder = tmp_path / "run"
    train_to_a_fault(Case("", "ppo", "Line:none", None, {}), folder, monkeypatch)
    with pytest.raises(RequestError, match="no fault was recorded"):
        explain.run([str(folder)])
    for name in ("summary.json", "no.json"):
        with pytest.raises(RequestError):
            explain.run([str(folder), "--fault", name])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "pgtoolkit-fault-1"}', "[" * 9_000])
def test_a_file_that_was_altered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    folder = tmp_path / "run"
    make_fault(folder, monkeypatch).write_text(text)
    with pytest.raises(RequestError):
        explain.run([str(folder)])


def test_a_recording_that_was_altered_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    path = make_fault(folder, monkeypatch).with_suffix(".safetensors")
    states: tuple[dict[str, Any], ...] = (
        {},
        {"flights": []},
        {"flights": [{"before": {}}]},
        {"flights": 3},
    )
    for state in [{}, *states]:
        path.unlink()
        save_checkpoint(path, state)
        with pytest.raises(RequestError):
            explain.run([str(folder)])


def test_without_a_recorded_state_the_replay_begins_at_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a state that is too large to be kept."""
    folder = tmp_path / "run"
    monkeypatch.setattr(flight_recorder, "MAX_BYTES", 0)
    path = make_fault(folder, monkeypatch)
    assert json.loads(path.read_text())["recording"] is None
    found = explained(folder, capsys)
    assert found["repeated"] and found["began"]["tensor"] == "reward"
    assert found["began"]["step"] == AT - STEPS and found["began"]["env_index"] == WHICH


def test_a_fault_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation after the first window comes to the tenth step; training does not."""
    folder = tmp_path / "run"
    make_fault(folder, monkeypatch, "--eval-interval", "1", "--eval-episodes", "4")
    found = explained(folder, capsys)
    assert found["repeated"] and "evaluation" in found["replay"]
    assert (found["began"]["step"], found["began"]["env_index"]) == (AT, WHICH)


def test_an_exception_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is written down, and what replaced the agent's code then does not repeat it."""

    def fail(agent: Any) -> None:
        def update(window: Any) -> None:
            raise ZeroDivisionError("by hand")

        agent.update = update

    folder = tmp_path / "run"
    train_to_a_fault(Case("", "apg", "Point:none", fail, {}), folder, monkeypatch)
    found = explained(folder, capsys)
    assert (found["kind"], found["message"]) == ("exception", "by hand")
    assert not found["repeated"] and found["began"] is None


def test_an_environments_own_fault_is_replayed_in_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file has the episode's start and actions."""
    folder = tmp_path / "run"
    train_to_a_fault(Case("", "ppo", "Line:fault", None, {}), folder, monkeypatch)
    found = explained(folder, capsys)
    began = found["began"]
    assert (found["kind"], found["repeated"]) == ("environment", True)
    assert {key: began[key] for key in HERE} == HERE and began["tensor"] == "reward"
    assert "a fresh environment fails again at step 10" in found["notes"][-1]
