"""``pgtoolkit variance RUN`` of a run with a critic: saved, measured and reported."""

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.config import (
    AdamSettings,
    CriticSettings,
    DiagnosticsSettings,
    PolicySettings,
    ProbeSettings,
    RolloutSettings,
)
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.measurement.gradient_probe import make_probe
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.learners.policy_learner import PolicyLearner
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.rollouts.window import Window
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli import registry
from pgtoolkit.state import load_state_of, state_of
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

QUICK = ["--trajectories", "24", "--horizons", "2", "4"]
TRAINING = ["--total-steps", "240", "--num-envs", "6", "--n-steps", "10", "--hidden", "8"]
STATE = ("collector", "learner", "q", "probe")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClimberConfig(
    RolloutSettings,
    AdamSettings,
    PolicySettings,
    CriticSettings,
    ProbeSettings,
    DiagnosticsSettings,
):
    """Settings of an agent that climbs a critic which is never fitted."""

    probe_steps: int = 4
    probe_envs: int = 8
    diagnostics_interval: int = 1
    num_critics: int = 2


@final
class Climber:
    """Climbs its critic at the states of a window."""

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: ClimberConfig, env: AnyVectorEnv, *, seed: int = 0, total_steps: int = 1000
    ) -> None:
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        self.policy = self.collector.make_policy()
        self.learner = PolicyLearner.of(config, self.policy, self.collector.progress)
        self.q = make_q_ensemble(config, self.collector.spaces, seed=seed)
        self.probe = make_probe(self.collector, config, self.learner.monitor)

    @property
    def critic(self) -> CriticView:
        return CriticView(self.q, temperature=0.1, reward_scale=2.0, entropy_target=-0.5)

    def collect(self) -> Window:
        return self.collector.collect(self.policy)

    def update(self, window: Window) -> Metrics:
        with self.learner.updating(window):
            obs, noise = window.obs.flatten(0, 1), window.noise.flatten(0, 1)
            features = self.policy.normalizer(obs)
            metrics = self.learner.step_surrogate(
                "critic", lambda at: self.q.policy_value(features, at.rsample(noise)), obs
            )
            return metrics | self.probe.measure(self.policy, self.critic)

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


@pytest.fixture(autouse=True)
def known_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``climber`` an agent of the command line."""
    module: Any = types.ModuleType("climber_for_tests")
    module.Climber, module.ClimberConfig = Climber, ClimberConfig
    monkeypatch.setitem(sys.modules, "climber_for_tests", module)
    row = registry.LazyClass("climber_for_tests", "Climber", "for tests")
    monkeypatch.setitem(registry.AGENTS, "climber", row)


def call(command: str, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(command, found), [*arguments])
    return int(caught.value.code or 0)


def trained(path: Path, env: str) -> Path:
    arguments = ["climber", "--env", env, "--run-dir", str(path), *TRAINING]
    assert call("train", *arguments) == 0
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def test_the_critic_of_a_run_is_measured_against_the_exact_gradient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file, picture = trained(tmp_path / "run", "pgtoolkit/Pendulum-v0"), "a.json", "plot.png"
    capsys.readouterr()
    outputs = ["--json", str(tmp_path / file), "--plot", str(tmp_path / picture)]
    assert call("variance", str(run), *QUICK, *outputs) == 0
    out = capsys.readouterr().out
    assert "ends with the critic's value" in out and "critic's gradient" in out
    rows = rows_of(tmp_path / file)
    names = ["score_function", "pathwise", "mixed", "critic"]
    assert [row["estimator"] for row in rows] == 2 * names
    for row in rows:
        reference = {"score_function": "", "critic": "pathwise"}
        assert row["reference"] == reference.get(row["estimator"], "score_function")
        assert (row["cosine"] is None) == (row["estimator"] == "score_function")
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_the_objective_is_the_same_without_the_critic_and_ends_there(tmp_path: Path) -> None:
    """Named without the critic, the rows are those of the rewards of H steps alone."""
    run, file = trained(tmp_path / "run", "pgtoolkit/Pendulum-v0"), tmp_path / "a.json"
    found = []
    for names in ([], ["--estimators", "score_function", "pathwise"]):
        assert call("variance", str(run), *QUICK, "--json", str(file), *names) == 0
        found.append({(r["estimator"], r["horizon"]): r["variance"] for r in rows_of(file)})
    with_critic, without = found
    assert without.keys() < with_critic.keys()
    assert all(with_critic[key] != without[key] for key in without)


def test_on_an_environment_without_a_gradient_the_critic_has_the_score_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = trained(tmp_path / "run", "Pendulum-v1"), tmp_path / "a.json"
    capsys.readouterr()
    assert call("variance", str(run), *QUICK, "--json", str(file)) == 0
    out = capsys.readouterr().out
    assert "No pathwise gradient: Pendulum-v1 has no gradient" in out and "critic's" in out
    rows = rows_of(file)
    assert [row["estimator"] for row in rows[:3]] == ["score_function", "mixed", "critic"]
    assert rows[2]["reference"] == "score_function" and rows[2]["bias_z"] is not None


def test_a_saved_critic_has_its_temperature_and_its_unit(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "Pendulum-v1")
    saved = load_checkpoint(run / "policy" / "last.safetensors")["critic"]
    assert (saved["temperature"], saved["reward_scale"]) == (0.1, 2.0)
    assert saved["entropy_target"] == -0.5
    assert {name.split(".")[1] for name in saved["module"]} == {"0", "1"}
    assert call("evaluate", str(run), "--episodes", "2") == 0  # which needs the policy alone


def test_a_critic_of_an_earlier_version_has_no_target(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "Pendulum-v1")
    for name in ("last", "best"):
        file = run / "policy" / f"{name}.safetensors"
        state = load_checkpoint(file)
        del state["critic"]["entropy_target"]
        save_checkpoint(file, state, inside=run)
    assert call("variance", str(run), *QUICK, "--estimators", "critic") == 0


@pytest.mark.parametrize("damage", ["shape", "temperature", "missing"])
def test_a_critic_that_does_not_fit_is_refused(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path / "run", "Pendulum-v1")
    file = run / "policy" / "last.safetensors"
    (run / "policy" / "best.safetensors").unlink(missing_ok=True)
    state = load_checkpoint(file)
    if damage == "shape":
        name = next(iter(state["critic"]["module"]))
        state["critic"]["module"][name] = torch.zeros(3)
    elif damage == "temperature":
        state["critic"]["temperature"] = float("nan")
    else:
        del state["critic"]
    save_checkpoint(file, state, inside=run)
    capsys.readouterr()
    assert call("variance", str(run), *QUICK, "--estimators", "critic", "--checkpoint", "last") == 2
    expected = {"missing": "there is no critic to measure"}
    assert expected.get(damage, "does not fit the settings") in capsys.readouterr().err


def test_a_fresh_policy_has_no_critic(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--env", "pgtoolkit/Pendulum-v0", *QUICK, "--estimators", "critic"]
    assert call("variance", *arguments) == 2
    assert "there is no critic to measure" in capsys.readouterr().err


def test_a_run_with_a_probe_stops_and_resumes_as_one(tmp_path: Path) -> None:
    """The probe's environments and running means are the same to the bit."""
    arguments = ["climber", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(tmp_path / "half")]
    half = [x if x != "240" else "120" for x in TRAINING]
    assert call("train", *arguments, *half, "--learning-rate-schedule", "constant") == 0
    assert call("resume", str(tmp_path / "half"), "--total-steps", "240") == 0
    again = ["climber", "--env", "pgtoolkit/Pendulum-v0", "--run-dir", str(tmp_path / "again")]
    assert call("train", *again, *TRAINING, "--learning-rate-schedule", "constant") == 0
    states = [
        load_checkpoint(tmp_path / name / "resume.safetensors")["agent"]["probe"]
        for name in ("half", "again")
    ]
    assert torch.equal(states[0]["env"]["obs"], states[1]["env"]["obs"])
    assert states[0]["own"] == states[1]["own"]
