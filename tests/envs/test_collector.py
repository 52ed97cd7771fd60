"""The collector: its counts, noise, graph and saved state, and which rollout an agent gets."""

import copy
import functools
import itertools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.collector import Collector, is_compilable, make_rollout
from pgtoolkit.envs.compiled.rollout import CompiledUnroll
from pgtoolkit.envs.control.cart_pole import CartPole
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.checkpointed import unroll_in_segments
from pgtoolkit.rollouts.rollout import collect, unroll
from pgtoolkit.rollouts.window import FIELDS, Window
from pgtoolkit.seeding import stream
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

LONG, SHORT = 100_000_000, 1000


@pytest.fixture(autouse=True)
def _with_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: True)


def rollout(total_steps: int, **settings: Any) -> Any:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    given: dict[str, Any] = {"compile": "auto", "checkpoint_every": 0} | settings
    return make_rollout(env, ApgConfig(**given), total_steps=total_steps, gradient=True)


def test_short_runs_are_plain_and_long_ones_compiled_and_it_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        assert rollout(SHORT) is unroll
        assert not caplog.records
        assert isinstance(rollout(LONG), CompiledUnroll)
    assert ["compiling the step" in record.message for record in caplog.records] == [True]


def test_what_the_user_says_goes_before() -> None:
    assert isinstance(rollout(SHORT, compile="always"), CompiledUnroll)
    assert rollout(LONG, compile="never") is unroll


def test_without_a_compiler_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: False)
    assert rollout(LONG) is unroll


def test_checkpoints_are_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        found = rollout(LONG, compile="always", checkpoint_every=4)
    assert isinstance(found, functools.partial) and found.func is unroll_in_segments
    assert "not compiled: checkpointed" in caplog.text


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Pendulum, True),
        (CartPole, True),
        (lambda: ActionRepeat(Pendulum(), 2), True),
        (lambda: GradientGate(Pendulum()), False),
        (
            lambda: FiniteDifference(GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1"))),
            False,
        ),
    ],
)
def test_only_plain_torch_functions_are_compilable(
    make: Callable[[], DifferentiableEnv[Any]], expected: bool
) -> None:
    assert is_compilable(make()) == expected


def test_an_agent_without_gradient_collects_in_a_compiled_loop_where_it_can() -> None:
    native = DifferentiableVectorEnv(Pendulum(), 4)
    auto, always = PpoConfig(compile="auto"), PpoConfig(compile="always")
    found = make_rollout(native, auto, total_steps=LONG, gradient=False)
    assert isinstance(found, CompiledUnroll)
    assert make_rollout(native, auto, total_steps=SHORT, gradient=False) is collect
    other = gymnasium.make_vec("Pendulum-v1", 4, vectorization_mode="sync")
    assert make_rollout(other, always, total_steps=LONG, gradient=False) is collect


# The collector itself -----------------------------------------------------------------------------


class Counter(DifferentiableEnv[Tensor]):
    """Ends after 3 steps in odd environments, never before 5 in even ones; reward is the action.

    State ``[N, 3]``: a position, the steps so far, and whether the environment is odd.
    """

    observation_space = gymnasium.spaces.Box(-1e3, 1e3, (3,))
    action_space = gymnasium.spaces.Box(-float("inf"), float("inf"), (1,))
    max_episode_steps = 5
    noise_shape = (1,)

    def __init__(self, action: Any = "exact") -> None:
        self.gradient = GradientInfo(action=action)
        self.updates = 0

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        position = torch.rand(num_envs, generator=generator)
        return torch.stack([position, 0 * position, torch.arange(num_envs) % 2.0], 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        assert noise is not None
        position = 0.9 * state[:, :1] + action + 0.1 * noise
        return torch.cat([position, state[:, 1:2] + 1, state[:, 2:]], 1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return action[:, 0]

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 2] == 1) & (state[:, 1] >= 3)

    def begin_window(self) -> None:
        self.updates += 1

    def metrics(self) -> dict[str, Tensor]:
        return {"environment/updates": torch.tensor(self.updates)}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]


def collector_of(
    env: DifferentiableEnv | None = None, *, seed: int = 0, total_steps: int = 64, **settings: Any
) -> Collector:
    """Four environments, eight steps a window."""
    gradient = settings.pop("gradient", True)
    given: dict[str, Any] = {"num_envs": 4, "n_steps": 8, "compile": "never"} | settings
    vector = DifferentiableVectorEnv(env or Counter(), 4)
    config = ApgConfig(**given)
    return Collector(vector, config, seed=seed, total_steps=total_steps, gradient=gradient)


def gymnasium_collector(seed: int = 0, **settings: Any) -> Collector:
    """Two of Gymnasium's cart-poles, in one window of 16 steps."""
    given: dict[str, Any] = {"num_envs": 2, "n_steps": 16, "compile": "never"} | settings
    vector = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    return Collector(vector, PpoConfig(**given), seed=seed, total_steps=64)


def assert_same_window(found: Window, expected: Window) -> None:
    for field in FIELDS:
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert (one is None and other is None) or torch.equal(one, other), field.name


def test_steps_are_counted_as_they_are_collected() -> None:
    """4 environments: 8 steps each, then 3; the progress is that before the latest window."""
    collector = collector_of()
    policy = collector.make_policy()
    assert (collector.num_steps, collector.progress()) == (0, 0.0)
    assert collector.collect(policy).num_steps == 8
    assert (collector.num_steps, collector.progress()) == (32, 0.0)
    assert collector.collect(policy, 3).num_steps == 3
    assert (collector.num_steps, collector.progress()) == (44, 0.5)


def test_steps_that_never_happened_are_not_counted() -> None:
    """Cart-poles fall within 60 steps; under NEXT_STEP autoreset the step after it is a reset."""
    collector = gymnasium_collector(n_steps=60)
    window = collector.collect(collector.make_policy())
    never = int((~window.valid).sum())
    assert never > 0
    assert collector.num_steps == 120 - never


def test_the_noise_is_the_stream_of_the_seed() -> None:
    """Window after window from one generator, and none of it from elsewhere."""
    collector, generator = collector_of(seed=3), stream(3, "action noise")
    policy = collector.make_policy()
    for num_steps in (8, 2, 8):
        noise = collector.collect(policy, num_steps).noise
        assert torch.equal(noise, policy.draw_noise(num_steps, 4, generator=generator))


def test_a_seed_gives_the_same_windows_and_another_seed_others() -> None:
    windows = []
    for seed in (0, 0, 1):
        collector = collector_of(seed=seed)
        windows.append(collector.collect(collector.make_policy()).detach())
    assert_same_window(windows[0], windows[1])
    for name in ("obs", "noise", "action"):
        assert not torch.equal(getattr(windows[0], name), getattr(windows[2], name))


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("graph", [None, True, False])
def test_the_graph_is_kept_as_asked_for_and_by_default_as_the_agent_needs_it(
    gradient: bool, graph: bool | None
) -> None:
    """The rewards are the same with and without a graph."""
    collector, plain = collector_of(gradient=gradient), collector_of(gradient=False)
    policy = collector.make_policy()
    window = collector.collect(policy, graph=graph)
    expected = gradient if graph is None else graph
    assert window.differentiable == window.reward.requires_grad == expected
    torch.testing.assert_close(window.reward.detach(), plain.collect(policy).reward)


def test_windows_follow_each_other() -> None:
    """The next window begins where the last one ended, also when the graph is kept in turns."""
    collector = collector_of()
    policy = collector.make_policy()
    graphs = (False, True, None, False)
    windows = [collector.collect(policy, 5, graph=graph).detach() for graph in graphs]
    for last, following in itertools.pairwise(windows):
        on = ~last.done[-1]
        assert torch.equal(following.obs[0][on], last.next_obs[-1][on])
        assert following.episode_start is not None
        assert torch.equal(following.episode_start[0], last.done[-1])


def test_whole_episodes_are_one_of_each_environment_from_a_reset() -> None:
    """Three steps in odd environments and five in even ones, 16 in all; no graph."""
    collector = collector_of()
    policy = collector.make_policy()
    window = collector.collect_episodes(policy)
    assert window.valid.sum(0).tolist() == [5, 3, 5, 3]
    assert window.num_steps == 5 and not window.differentiable
    assert window.obs[0, :, 1].tolist() == [0, 0, 0, 0]
    assert window.terminated.any(0).tolist() == [False, True, False, True]
    assert collector.num_steps == 16
    assert collector.progress() == 0


@pytest.mark.parametrize("make", [collector_of, gymnasium_collector])
def test_a_window_after_whole_episodes_begins_where_the_environments_stand(
    make: Callable[[], Collector],
) -> None:
    """The steps beyond an episode are discarded, but the environments have taken them."""
    collector = make()
    policy, seen = collector.make_policy(), []
    step = collector.env.step

    def record(actions: Any) -> Any:
        seen.append(step(actions))
        return seen[-1]

    collector.env.step = record  # type: ignore[method-assign]
    collector.collect_episodes(policy)
    last_obs = torch.as_tensor(seen[-1][0])
    assert torch.equal(collector.collect(policy).obs[0], last_obs)


def test_first_episodes_start_at_staggered_ages() -> None:
    """The age of each is drawn from the seed, so that not all are truncated in one step."""
    ages = []
    for seed in (0, 0, 1):
        config = ApgConfig(num_envs=64, n_steps=8, compile="never")
        vector = DifferentiableVectorEnv(Counter(), 64)
        collector = Collector(vector, config, seed=seed, total_steps=64)
        ages.append(vector.get_state().elapsed)
        assert torch.equal(collector.rollout_state.episode_start, ages[-1] == 0)
    assert torch.equal(ages[0], ages[1]) and not torch.equal(ages[0], ages[2])
    assert set(ages[0].tolist()) == {0, 1, 2, 3, 4}


def test_a_saved_collector_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """A collector of another seed loads the file and gives the same windows and counts."""
    one, other = collector_of(seed=0), collector_of(seed=9)
    policy = one.make_policy()
    one.collect(policy)
    for _ in range(2):
        other.collect(policy, 3)
    save_checkpoint(tmp_path / "state.safetensors", one.state_dict())
    other.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    assert (other.num_steps, other.progress()) == (32, 0.5)
    for _ in range(3):
        assert_same_window(other.collect(policy).detach(), one.collect(policy).detach())
        assert other.num_steps == one.num_steps
    assert other.metrics() == one.metrics() == {"environment/updates": torch.tensor(4)}


def test_a_saved_state_does_not_change_while_the_collector_goes_on() -> None:
    collector = collector_of()
    policy = collector.make_policy()
    collector.collect(policy)
    state = collector.state_dict()
    before = copy.deepcopy(state)
    expected = collector.collect(policy).detach()
    collector.load_state_dict(state)
    assert_same_window(collector.collect(policy).detach(), expected)
    assert torch.equal(state["generator"], before["generator"])
    assert state["num_steps"] == before["num_steps"] == 32


def test_environments_that_cannot_be_saved_start_new_episodes_of_another_seed() -> None:
    """Gymnasium gives no state. Noise and counts go on, and resuming twice gives one window."""
    windows = []
    for _ in range(2):
        one, other = gymnasium_collector(), gymnasium_collector()
        policy = one.make_policy()
        first = one.collect(policy)
        state = one.state_dict()
        assert state["env"]["environments"] is None
        other.load_state_dict(state)
        windows.append(other.collect(policy))
        assert torch.equal(windows[-1].noise, one.collect(policy).noise)
        assert windows[-1].episode_start is not None and bool(windows[-1].episode_start[0].all())
        assert not torch.equal(windows[-1].obs[0], first.obs[0])
        assert other.num_steps == state["num_steps"] + int(windows[-1].valid.sum())
    assert_same_window(windows[0], windows[1])


def test_spaces_device_and_metrics_are_those_of_the_environments() -> None:
    collector = collector_of()
    assert collector.spaces == (Counter.observation_space, Counter.action_space)
    assert collector.device == torch.device("cpu")
    assert collector.can_differentiate
    other = gymnasium_collector(normalize_rewards=False)
    assert other.metrics() == {} and not other.can_differentiate
    undifferentiable = collector_of(Counter("none"), gradient=False)
    assert not undifferentiable.can_differentiate


def test_a_policy_has_the_weights_of_the_seed() -> None:
    policies = [collector_of(seed=seed).make_policy().state_dict() for seed in (0, 0, 1)]
    name = "head.output.weight"
    assert torch.equal(policies[0][name], policies[1][name])
    assert not torch.equal(policies[0][name], policies[2][name])


def test_another_number_of_environments_than_configured_is_refused() -> None:
    with pytest.raises(RequestError, match="has 4 environments, the agent's num_envs is 5"):
        collector_of(num_envs=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gymnasium.make_vec("Pendulum-v1", 4), "this environment has no gradient"),
        (
            lambda: DifferentiableVectorEnv(Counter("none"), 4),
            r"gradient\.action = 'none'\): train with `reinforce`",
        ),
    ],
)
def test_an_agent_that_needs_a_gradient_refuses_an_environment_without_one(
    make: Callable[[], Any], message: str
) -> None:
    config = ApgConfig(num_envs=4)
    with pytest.raises(RequestError, match=message):
        Collector(make(), config, seed=0, total_steps=64, gradient=True)
    Collector(make(), config, seed=0, total_steps=64)


def test_a_graph_is_refused_where_the_environment_has_none() -> None:
    collector = gymnasium_collector()
    with pytest.raises(RequestError, match="without graph=True"):
        collector.collect(collector.make_policy(), graph=True)


class LargeNumbers(gymnasium.Env[Any, Any]):
    """Observes 1.7e9 or 1.7e9 + 1 and never ends."""

    observation_space = gymnasium.spaces.Box(-math.inf, math.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(), {}

    def observe(self) -> Any:
        return np.array([1.7e9 + self.np_random.integers(2)])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observe(), 0.0, False, False, {}


def collector_of_large_numbers(**settings: Any) -> Collector:
    env = SyncVectorEnv([LargeNumbers] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    config = PpoConfig(num_envs=4, n_steps=8, **settings)
    return Collector(env, config, seed=0, total_steps=100)


@pytest.mark.parametrize("normalize", [False, True])
def test_observations_that_float32_loses_are_named_once(
    normalize: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not if they are normalised: then nothing is lost."""
    collector = collector_of_large_numbers(normalize_observations=normalize)
    policy = collector.make_policy()
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        for _ in range(3):
            collector.collect(policy)
    found = [record.message for record in caplog.records if "float32" in record.message]
    assert len(found) == (0 if normalize else 1)
    assert normalize or "entry 0 varies by 1 around 1.7e+09" in found[0]


def test_whole_episodes_without_an_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.envs.collector.MAX_EPISODE_STEPS", 100)
    collector = collector_of_large_numbers()
    with pytest.raises(RequestError, match=r"did not end within 100 steps: .*rollout='windows'"):
        collector.collect_episodes(collector.make_policy())


def test_a_long_time_limit_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes as long as the environment says are no reason to give up."""
    monkeypatch.setattr("pgtoolkit.envs.collector.MAX_EPISODE_STEPS", 10)
    env = DifferentiableVectorEnv(Pendulum(), 2)
    collector = Collector(env, PpoConfig(num_envs=2), seed=0, total_steps=100)
    assert collector.collect_episodes(collector.make_policy()).num_steps == 200
