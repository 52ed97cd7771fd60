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

ENVS = Path(__file__).with_name("faulty_envs.py")
AT, WHICH = 9, 2
STEPS = 6
"""Steps of a window, so that the fault lies at step 3 of the second one."""
DIFFERENTIABLE, ORDINARY = ("shac", "apg"), ("ppo", "reinforce", "a2c")

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


def small(agent: str) -> list[str]:
    """Flags of a tiny run."""
    flags = ["--n-steps", str(STEPS), "--num-envs", "4", "--hidden", "8", "--total-steps", "240"]
    flags += ["--eval-interval", "0", "--checkpoint-interval", "100000", "--diagnostics-interval"]
    flags += ["0"]
    if agent != "apg" and agent != "ppo" and agent != "a2c":
        flags += ["--vf-epochs", "1", "--vf-minibatches", "1"]
    if agent == "ppo":
        flags += ["--n-epochs", "1", "--batch-size", "8", "--compile", "never"]
    return flags + (["--compile", "never"] if agent in DIFFERENTIABLE else [])


def train_to_a_fault(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains until the fault; the agent is changed before its third window."""
    from pgtoolkit.training.flight_recorder import FlightRecorder

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
    arguments += ["--env-kwargs", json.dumps({"fault": fault}), *small(case.agent), *case.flags]
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
        agent.minibatches.state.square[0] = math.inf
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
        for name, tensor in (("transition", "state"), ("square root", "derivative"))
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.agent}")
def test_the_address_of_a_fault(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train_to_a_fault(case, folder, monkeypatch)
    found = explained(folder, capsys)
    began = found["began"]
    assert {key: began[key] for key in case.expected} == case.expected, began["sentence"]
    assert found["repeated"], found["replay"]
