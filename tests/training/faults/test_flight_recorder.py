"""The flight recorder: what it keeps, what it costs, and when it writes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import EnvFaultError, NonFiniteError, RequestError
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.diagnosis import Diagnosis
from pgtoolkit.training.faults import flight_recorder
from pgtoolkit.training.faults.fault_file import fault_files, json_value, read_fault
from pgtoolkit.training.faults.flight_recorder import FlightRecorder, copied, described, leaves
from pgtoolkit.training.faults.flight_replay import same_bits
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder


def make_shac(seed: int = 0) -> Shac:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    return Shac(ShacConfig(num_envs=4, n_steps=4, hidden=(8,), compile="never"), env, seed=seed)


def make_ppo(seed: int = 0) -> Ppo:
    env = make_vector_env(find_env("CartPole-v1"), 2)
    config = PpoConfig(num_envs=2, n_steps=8, hidden=(8,), batch_size=8, compile="never")
    return Ppo(config, env, seed=seed)


class Fixed:
    """An agent whose update takes no time and whose norm of the gradient is given."""

    def __init__(self, norms: list[float], size: int = 1) -> None:
        agent = make_shac()
        self.policy, self.norms, self.weight = agent.policy, norms, torch.zeros(size)
        self._window = agent.collect().detach()

    def collect(self) -> Window:
        return self._window

    def update(self, window: Window) -> dict[str, Tensor]:
        self.weight += 1
        return {"train/gradient_norm": torch.tensor(self.norms.pop(0), dtype=torch.float64)}

    def state_dict(self) -> dict[str, Any]:
        return {"weight": self.weight}


def fly(recorder: FlightRecorder, progress: Progress, times: int) -> None:
    for _ in range(times):
        window, metrics = recorder.fly(progress)
        progress.count(window)
        recorder.review(metrics, progress)


@pytest.mark.parametrize("make", [make_shac, make_ppo])
def test_no_bit_of_a_run_changes(make: Any, tmp_path: Path) -> None:
    """An agent that is recorded, with a copy before every window, and one that is not."""
    recorded, plain = make(), make()
    recorder = FlightRecorder(recorded, RunFolder(tmp_path))
    recorder._count = lambda seconds: None  # type: ignore[method-assign]  # stride 1
    before = torch.get_rng_state()
    fly(recorder, Progress(), 5)
    for _ in range(5):
        plain.update(plain.collect())
    one, two = leaves(recorded.state_dict()), leaves(plain.state_dict())
    assert one.keys() == two.keys() and all(same_bits(one[k], two[k]) for k in one)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []


def test_states_are_copies_of_the_last_three(tmp_path: Path) -> None:
    agent = Fixed([1.0] * 6)
    recorder: Any = FlightRecorder(agent, RunFolder(tmp_path))  # type: ignore[arg-type]
    recorder._count = lambda seconds: None
    fly(recorder, Progress(), 6)
    assert [float(x.before["weight"]) for x in recorder.flights] == [3.0, 4.0, 5.0]
    assert [x.num_updates for x in recorder.flights] == [3, 4, 5]


def test_copies_are_made_as_often_as_they_are_worth(tmp_path: Path) -> None:
    """1 % of an update's time: a copy of 5 ms beside updates of 100 ms comes every fifth time."""
    recorder = FlightRecorder(make_shac(), RunFolder(tmp_path))
    recorder.copies, recorder.copy_seconds = 2, 0.005
    recorder._count(0.1)
    assert recorder.stride == 5
    recorder.copy_seconds = 1.0
    recorder._count(0.1)
    assert recorder.stride == flight_recorder.NEVER


def test_a_large_state_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_recorder, "MAX_BYTES", 1_000)
    agent = Fixed([1.0] * 4, size=1_000)
    recorder: Any = FlightRecorder(agent, RunFolder(tmp_path))  # type: ignore[arg-type]
    fly(recorder, Progress(), 4)
    assert [x.before for x in recorder.flights] == [None]


def test_the_agent_is_left_as_it_was(tmp_path: Path) -> None:
    """Noise and steps are kept while the recorder flies, and not afterwards."""
    agent = make_ppo()
    recorder = FlightRecorder(agent, RunFolder(tmp_path))
    fly(recorder, Progress(), 1)
    flight = recorder.flights[-1]
    assert (len(flight.noise), len(flight.events)) == (1, 8)
    agent.collect()
    assert (len(flight.noise), len(flight.events)) == (1, 8)
    assert agent.collector.stepped is agent.collector.env


# Triggers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [150.0, math.inf, math.nan])
def test_a_spike_is_written_down_and_the_run_goes_on(
    norm: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Above 100 times the median of 1, or no number at all; 90 is no spike."""
    agent = Fixed([1.0] * 12 + [90.0, norm, 1.0])
    recorder = FlightRecorder(agent, RunFolder(tmp_path))  # type: ignore[arg-type]
    fly(recorder, Progress(), 15)
    (path,) = fault_files(tmp_path)
    fault = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (fault["kind"], fault["num_updates"]) == ("spike", 13)
    assert float(fault["norm"]) == norm or math.isnan(norm)
    assert ["explain" in record.getMessage() for record in caplog.records] == [True]


def test_at_most_five_spikes_are_written_down_a_run(tmp_path: Path) -> None:
    """Also if the run was resumed in between."""
    for _ in range(2):
        agent = Fixed([1.0] * 40 + [1e9] * 4)
        recorder = FlightRecorder(agent, RunFolder(tmp_path))  # type: ignore[arg-type]
        fly(recorder, Progress(), 44)
    assert len(fault_files(tmp_path)) == 5


def test_a_collapse_is_written_down_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the diagnosis first finds the run far below its best."""
    progress = Progress(diagnosis=Diagnosis())
    for step, value in enumerate((-100.0, -10.0, -90.0, -90.0)):
        progress.diagnosis.observe({"eval/mean_reward": value}, step)
    assert "below_best" in progress.diagnosis.kinds
    recorder = FlightRecorder(Fixed([1.0] * 3), RunFolder(tmp_path))  # type: ignore[arg-type]
    fly(recorder, progress, 3)
    (path,) = fault_files(tmp_path)
    assert read_fault(path)["kind"] == "collapse"


def test_a_state_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    """An infinite moment of Adam would only keep its parameter where it is."""
    agent = make_shac()
    recorder, progress = FlightRecorder(agent, RunFolder(tmp_path)), Progress()
    fly(recorder, progress, 2)
    state = agent.learner.rule.optimizer.state  # type: ignore[attr-defined]
    state[agent.policy.get_parameter("torso.0.bias")]["exp_avg"][3] = math.inf
    with pytest.raises(NonFiniteError, match=r"first moment of the parameter torso\.0\.bias"):
        fly(recorder, progress, 1)


def test_a_wrong_request_is_no_fault(tmp_path: Path) -> None:
    recorder = FlightRecorder(make_shac(), RunFolder(tmp_path))
    with pytest.raises(RequestError), recorder.watching("training", Progress()):
        raise RequestError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_fault_that_cannot_be_written_does_not_hide_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and nothing half-written stays."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pgtoolkit.training.faults.fault_file.os.open", full)
    recorder = FlightRecorder(make_shac(), RunFolder(tmp_path))
    recorder._begin(Progress())
    with pytest.raises(NonFiniteError), recorder.watching("training", Progress()):
        raise NonFiniteError("reward", 3, 1)
    (record,) = caplog.records
    assert "No space left" in record.getMessage() and "\n" not in record.getMessage()
    assert list(tmp_path.glob("fault-*")) == []


def test_what_an_environments_fault_says_is_kept() -> None:
    """Index, step of the episode, seed and what repeats it; NaN becomes text."""
    replay = {"start": {"seed": 5}, "actions": [[0.5], [math.nan]]}
    error = EnvFaultError("it raised", env_index=3, step=17, seed=5, replay=replay)
    found = json_value(described(error))
    assert found == {
        "kind": "environment",
        "type": "EnvFaultError",
        "message": "it raised",
        "episode_step": 17,
        "seed": 5,
        "env_index": 3,
        "replay": {"start": {"seed": 5}, "actions": [[0.5], ["nan"]]},
    }


def test_a_copy_shares_no_memory() -> None:
    state = {"a": [torch.zeros(2), (torch.ones(1), "text", None)], 3: 1.5}
    copy = copied(state)
    state["a"][0] += 1  # type: ignore[index]
    assert torch.equal(copy["a"][0], torch.zeros(2)) and copy["a"][1][1:] == ("text", None)
    assert copy[3] == 1.5 and isinstance(copy["a"][1], tuple)
