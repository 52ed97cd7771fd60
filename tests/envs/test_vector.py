import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import map_state, where_state
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import EnvFaultError, RequestError
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import collect, reset, unroll


class Walk(DifferentiableEnv[Tensor]):
    """``x' = x + 0.1 sin x + a`` from 0; terminal where ``|x| > bound``; reward ``-x'^2``."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, bound: float = 1.0, max_episode_steps: int = 100) -> None:
        self.bound, self.max_episode_steps = bound, max_episode_steps

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1, device=generator.device)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + 0.1 * torch.sin(state) + action

    def observation(self, state: Tensor) -> Tensor:
        return 2 * state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state.square().sum(-1)

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > self.bound


class Root(Walk):
    """``x' = x + a`` from 1; terminal at 0, where the observation ``sqrt x`` has no derivative."""

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.ones(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + action

    def observation(self, state: Tensor) -> Tensor:
        return state.sqrt()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0] <= 0


def vector(
    env: DifferentiableEnv, num_envs: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> DifferentiableVectorEnv:
    made = DifferentiableVectorEnv(env, num_envs, dtype=dtype)
    made.reset(seed=seed)
    return made


def rewards_of(env: DifferentiableVectorEnv, actions: Tensor) -> Tensor:
    return torch.stack([env.step(action)[1] for action in actions])


def test_shapes_spaces_and_mode() -> None:
    env = DifferentiableVectorEnv(Pendulum(), 3)
    obs, info = env.reset(seed=1)
    assert obs.shape == (3, 3) and obs.dtype == torch.float32 and info == {}
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.single_observation_space.shape == (3,) and env.observation_space.shape == (3, 3)
    assert env.single_action_space.shape == (1,) and env.action_space.shape == (3, 1)
    obs, reward, terminated, truncated, info = env.step(torch.zeros(3, 1))
    assert obs.shape == (3, 3) and reward.shape == (3,) and info == {}
    assert terminated.dtype == truncated.dtype == torch.bool
    env.close()


@pytest.mark.parametrize("shape", [(3,), (2, 1), (3, 2), (1, 3, 1)])
def test_actions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"actions must have shape \[3, 1\]"):
        vector(Pendulum(), 3).step(torch.zeros(shape))


def test_before_the_first_reset() -> None:
    env = DifferentiableVectorEnv(Pendulum(), 2)
    for call in (env.detach, env.get_state, lambda: env.step(torch.zeros(2, 1))):
        with pytest.raises(ResetNeeded):
            call()


def test_an_incomplete_environment_is_refused() -> None:
    class NoLimit(Walk):
        def __init__(self) -> None:
            """Does not set the time limit."""

    with pytest.raises(RequestError, match="NoLimit has no max_episode_steps"):
        DifferentiableVectorEnv(NoLimit(), 1)


def test_survivors_keep_their_gradient_when_others_reset() -> None:
    actions = torch.tensor([[0.6, 0.2], [0.7, -0.1], [0.3, 0.3], [0.1, 0.2]], dtype=torch.float64)
    gradients = []
    for bound in (1.0, math.inf):
        leaf = actions.clone().requires_grad_()
        rewards = rewards_of(vector(Walk(bound), 2), leaf.unsqueeze(-1))
        gradients.append(torch.autograd.grad(rewards.sum(), leaf)[0])
    reset, unreset = gradients
    assert torch.equal(reset[:, 1], unreset[:, 1])
    # Environment 0 ended at step 1: what follows is a new episode, from x = 0.
    leaf = actions[:, :1].clone().requires_grad_()
    first = rewards_of(vector(Walk(math.inf), 1), leaf[:2].unsqueeze(-1)).sum()
    second = rewards_of(vector(Walk(math.inf), 1), leaf[2:].unsqueeze(-1)).sum()
    expected = torch.autograd.grad(first + second, leaf)[0]
    assert torch.equal(reset[:, 0], expected[:, 0])


def test_the_observation_after_a_reset_has_no_past() -> None:
    env = vector(Walk(1.0), 2)
    action = torch.tensor([[1.5], [0.5]], dtype=torch.float64, requires_grad=True)
    obs, *_ = env.step(action)
    assert obs[0].item() == 0.0
    assert torch.autograd.grad(obs.sum(), action)[0].flatten().tolist() == [0.0, 2.0]


def test_a_singular_terminal_observation_leaks_no_nan() -> None:
    env = vector(Root(), 3)
    action = torch.tensor([[-1.0], [0.5], [3.0]], dtype=torch.float64, requires_grad=True)
    obs, reward, terminated, _, info = env.step(action)
    assert terminated.tolist() == [True, False, False]
    assert info["final_obs"].flatten().tolist() == [0.0, math.sqrt(1.5), 2.0]
    value = torch.where(terminated, 0.0, info["final_obs"][:, 0])
    gradient = torch.autograd.grad((obs.sum() + reward.sum() + value.sum()), action)[0].flatten()
    # obs and value: 1 / (2 sqrt x') each; reward: -2 x'.
    expected = [0.0, 1 / math.sqrt(1.5) - 3.0, 1 / 2.0 - 8.0]
    assert torch.allclose(gradient, torch.tensor(expected, dtype=torch.float64))


def test_final_obs_is_before_the_reset_and_carries_the_graph_where_truncated() -> None:
    env = vector(Walk(1.0, max_episode_steps=2), 2)
    actions = torch.tensor([[0.2, 0.9], [0.3, 0.9]], dtype=torch.float64, requires_grad=True)
    env.step(actions[0].unsqueeze(-1))
    obs, _, terminated, truncated, info = env.step(actions[1].unsqueeze(-1))
    assert terminated.tolist() == [False, True] and truncated.tolist() == [True, True]
    assert info["_final_obs"].tolist() == [True, True] and obs.flatten().tolist() == [0.0, 0.0]
    final = info["final_obs"][:, 0]
    at = [x + 0.1 * math.sin(x) + a for x, a in ((0.2, 0.3), (0.9, 0.9))]
    assert final.tolist() == pytest.approx([2 * x for x in at])
    gradient = torch.autograd.grad(final.sum(), actions)[0]
    assert gradient[:, 0].tolist() == pytest.approx([2 * (1 + 0.1 * math.cos(0.2)), 2.0])
    assert gradient[:, 1].tolist() == [0.0, 0.0]


def test_no_extra_work_when_no_episode_ends() -> None:
    env = vector(Walk(1.0), 2)
    before = env.get_state().generator_state
    *_, info = env.step(torch.zeros(2, 1))
    assert info == {} and torch.equal(before, env.get_state().generator_state)


def test_time_limits_are_per_environment() -> None:
    env = vector(Walk(math.inf, max_episode_steps=4), 3)
    zero = torch.zeros(3, 1)
    ends = []
    for t in range(9):
        if t == 2:
            env.reset(options={"reset_mask": np.array([False, True, False])})
        ends.append(env.step(zero)[3].tolist())
    assert [row[0] for row in ends] == [t in (3, 7) for t in range(9)]
    assert [row[1] for row in ends] == [t == 5 for t in range(9)]
    assert [row[2] for row in ends] == [row[0] for row in ends]


def test_a_masked_reset_leaves_the_others_alone() -> None:
    env = vector(Pendulum(), 3)
    before = env.detach()
    after, _ = env.reset(options={"reset_mask": torch.tensor([True, False, True])})
    assert torch.equal(after[1], before[1])
    assert not torch.equal(after[0], before[0]) and not torch.equal(after[2], before[2])
    with pytest.raises(ValueError, match=r"reset_mask'\] must have shape \[3\]"):
        env.reset(options={"reset_mask": np.array([True])})


def test_detach_cuts_the_graph_and_keeps_the_state() -> None:
    env = vector(Walk(1.0), 2)
    first = torch.full((2, 1), 0.1, dtype=torch.float64, requires_grad=True)
    obs, *_ = env.step(first)
    cut = env.detach()
    assert torch.equal(cut, obs) and not cut.requires_grad
    second = torch.full((2, 1), 0.1, dtype=torch.float64, requires_grad=True)
    reward = env.step(second)[1].sum()
    through, cut_off = torch.autograd.grad(reward, [second, first], allow_unused=True)
    assert cut_off is None and bool((through != 0).all())


@pytest.mark.parametrize("env", [LQG(), Pendulum(), PointMass()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("plain", [False, True])
def test_a_restored_state_continues_bit_for_bit(env: DifferentiableEnv, plain: bool) -> None:
    source, actions = (
        vector(env, 4, torch.float32),
        torch.randn(12, 4, *env.action_space.shape, generator=torch.Generator().manual_seed(3)),
    )
    rewards_of(source, actions[:3])
    saved = source.get_state()
    if plain:
        inner = saved.state if isinstance(saved.state, Tensor) else tuple(saved.state)
        restored: tuple[object, ...] = (inner, saved.elapsed, saved.generator_state)
    else:
        restored = saved
    other = DifferentiableVectorEnv(env, 4)
    other.set_state(restored)
    for action in actions[3:]:
        ours, theirs = source.step(action), other.step(action)
        for mine, its in zip(ours[:4], theirs[:4], strict=True):
            assert torch.equal(mine, its)
    if isinstance(saved.state, tuple):
        assert type(other.get_state().state) is LQGState


def test_a_state_of_another_environment_is_refused() -> None:
    saved = vector(LQG(), 2).get_state()
    with pytest.raises(ValueError, match="a state of type Tensor was expected"):
        vector(Pendulum(), 2).set_state(saved)
    with pytest.raises(ValueError, match=r"must have shape \[3\]"):
        vector(LQG(), 3).set_state(saved)
    with pytest.raises(ValueError, match="a state of 2 tensors"):
        vector(LQG(), 2).set_state(((saved.state[0],), saved.elapsed, saved.generator_state))


def test_rollouts_accept_it() -> None:
    """A window of :func:`unroll` equals one of :func:`collect`, and has a gradient besides."""
    env = LQG(horizon=3)
    policy = GaussianPolicy(env.observation_space, env.action_space, hidden=())
    noise = torch.randn(7, 4, 1, generator=torch.Generator().manual_seed(0))
    windows = []
    for roll in (collect, unroll):
        vector_env = DifferentiableVectorEnv(env, 4)
        rollout_state = reset(vector_env, seed=0, device=torch.device("cpu"))
        windows.append(roll(vector_env, policy, rollout_state, noise)[0])
    plain, differentiable = windows
    for name in ("obs", "next_obs", "action", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(plain, name), getattr(differentiable, name)), name
    assert differentiable.action_shift is not None
    total = differentiable.reward[:3].sum()
    gradient = torch.autograd.grad(total, differentiable.action_shift)[0]
    assert bool((gradient[:3] != 0).all()) and bool((gradient[3:] == 0).all())


def test_seeds() -> None:
    action = torch.zeros(3, 1)

    def episode(seed: int | None, env: DifferentiableVectorEnv) -> Tensor:
        env.reset(seed=seed)
        return torch.stack([env.step(action)[0] for _ in range(8)])

    env = DifferentiableVectorEnv(LQG(), 3)
    assert torch.equal(episode(1, env), episode(1, DifferentiableVectorEnv(LQG(), 3)))
    assert torch.equal(episode(1, env), episode(1, env))
    assert not torch.equal(episode(1, env), episode(2, env))
    assert not torch.equal(episode(1, env), episode(None, env))
    unseeded = [episode(None, DifferentiableVectorEnv(LQG(), 3)) for _ in range(2)]
    assert not torch.equal(*unseeded)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    env = DifferentiableVectorEnv(LQG(), 3)
    env.reset(seed=0)
    rewards_of(env, torch.zeros(7, 3, 1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("env", [LQG(), Pendulum(), PointMass()], ids=lambda e: type(e).__name__)
def test_the_functions_are_pure(env: DifferentiableEnv) -> None:
    generator = torch.Generator().manual_seed(0)
    state = env.initial(3, generator)
    action = torch.randn(3, *env.action_space.shape, generator=generator)
    noise = None if env.noise_shape is None else torch.randn(3, *env.noise_shape)
    kept = map_state(Tensor.clone, state), action.clone()
    results = []
    for _ in range(2):
        after = env.transition(state, action, noise)
        results.append((after, env.reward(state, action, after), env.observation(after)))
        env.terminal(after)
    leaves = [(a,) if isinstance(a, Tensor) else a for a in (state, kept[0])]
    assert all(torch.equal(a, b) for a, b in zip(*leaves, strict=True))
    assert torch.equal(action, kept[1])
    assert torch.equal(results[0][1], results[1][1]) and torch.equal(results[0][2], results[1][2])


def test_a_step_changes_nothing_that_was_returned() -> None:
    env = vector(Walk(1.0), 2)
    obs, reward, *_ = env.step(torch.tensor([[0.9], [0.1]]))
    saved = env.get_state()
    copies = obs.clone(), reward.clone(), saved.elapsed.clone(), saved.generator_state.clone()
    env.step(torch.tensor([[0.9], [0.1]]))
    for kept, copy in zip((obs, reward, saved.elapsed, saved.generator_state), copies, strict=True):
        assert torch.equal(kept, copy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype: torch.dtype) -> None:
    env = DifferentiableVectorEnv(LQG(), 2, dtype=dtype)
    assert env.reset(seed=0)[0].dtype == dtype
    obs, reward, *_ = env.step(torch.zeros(2, 1))
    assert obs.dtype == reward.dtype == dtype
    state = env.get_state().state
    assert isinstance(state, LQGState) and state.time.dtype == torch.int64


def test_render_shows_environment_0() -> None:
    (frame,) = vector(Pendulum(), 2).render()
    assert frame.shape == (256, 256, 3) and frame.dtype == np.uint8
    with pytest.raises(RequestError, match="Walk does not draw itself"):
        vector(Walk(), 2).render()


class Pair(NamedTuple):
    position: Tensor
    age: Tensor


def test_states_are_mapped_and_chosen_by_row() -> None:
    a = Pair(torch.ones(2, 3), torch.tensor([1, 2]))
    b = Pair(torch.zeros(2, 3), torch.tensor([5, 6]))
    doubled = map_state(lambda x: 2 * x, a)
    assert type(doubled) is Pair and doubled.age.tolist() == [2, 4]
    chosen = where_state(torch.tensor([True, False]), a, b)
    assert type(chosen) is Pair and chosen.age.tolist() == [1, 6]
    assert chosen.position.tolist() == [[1.0] * 3, [0.0] * 3]
    assert map_state(torch.add, a.age, b.age).tolist() == [6, 8]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("reward", lambda self, state, action, after: -action),
        ("terminal", lambda self, state: torch.zeros(state.shape, dtype=torch.bool)),
        ("terminal", lambda self, state: torch.zeros(state.shape[0])),
        ("observation", lambda self, state: state[:, 0]),
    ],
)
def test_a_function_that_returns_the_wrong_thing_is_named(name: str, broken: Any) -> None:
    """``[N, 1]`` in place of ``[N]`` would broadcast without an error."""
    kind = type("Broken", (Pendulum,), {name: broken})
    with pytest.raises(RequestError, match=rf"Broken\.{name} returned"):
        env = DifferentiableVectorEnv(kind(), 4)
        env.reset(seed=0)
        env.step(torch.zeros(4, 1))


def _steps_in_place(self: Any, state: Tensor, action: Tensor, noise: Any) -> Tensor:
    state += action
    return state


def _rewards_in_place(self: Any, state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return -action.abs_()[:, 0]


WRITES = "wrote into the state or the action"
WRONG: dict[str, tuple[str, Any, str]] = {
    "a state of another dtype": (
        "transition",
        lambda self, state, action, noise: (state + action).double(),
        r"transition turned a state of torch\.float32 into torch\.float64: it must keep the dtype",
    ),
    "a reward of another dtype": (
        "reward",
        lambda self, state, action, after: after[:, 0].double(),
        r"reward returned torch\.float64: it must return torch\.float32, as the state is",
    ),
    "an observation of another dtype": (
        "observation",
        lambda self, state: state.double(),
        r"observation returned torch\.float64: it must return torch\.float32",
    ),
    "a step in place": ("transition", _steps_in_place, WRITES),
    "a reward in place": ("reward", _rewards_in_place, WRITES),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_dtypes_and_writes_are_refused_at_the_first_step(name: str) -> None:
    """They would fail far from the environment, or train on the reward of another state."""
    function, broken, words = WRONG[name]
    kind = type("Broken", (Walk,), {function: broken})
    with pytest.raises(RequestError, match=rf"Broken.*{words}"):
        env = DifferentiableVectorEnv(kind(), 2)
        env.reset(seed=0)
        env.step(torch.zeros(2, 1))


class Turns(Walk):
    """Goes wrong at its third step; ``how`` says how."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.count = how, 0

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        self.count += 1
        after = super().transition(state, action, noise)
        return after.double() if self.how == "dtype" and self.count == 3 else after

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        reward = super().reward(state, action, next_state)
        return reward[:, None] if self.how == "shape" and self.count == 3 else reward


@pytest.mark.parametrize(("how", "words"), [("dtype", "float64"), ("shape", r"\[2, 1\]")])
def test_what_goes_wrong_after_the_first_step_is_a_fault(how: str, words: str) -> None:
    """At the first step it would be a wrong request: the environment cannot be used at all."""
    env = DifferentiableVectorEnv(Turns(how), 2)
    env.reset(seed=0)
    action = torch.zeros(2, 1)
    env.step(action)
    env.step(action)
    with pytest.raises(EnvFaultError, match=words):
        env.step(action)


def _adds_noise(state: Tensor, action: Tensor, noise: Any) -> Tensor:
    return torch.add(state + action, noise)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"max_episode_steps": None}, "max_episode_steps is None: it must be an int"),
        ({"max_episode_steps": 2.5}, r"max_episode_steps is 2\.5"),
        ({"reward": None}, "reward is None: it must be a function"),
        ({"initial": lambda *_: [0.0]}, "initial returned a list: .* a tensor"),
        ({"transition": lambda *_: None}, "transition returned a NoneType: .* a tensor"),
        ({"transition": _adds_noise, "noise_shape": None}, "sets no noise_shape"),
        ({"observation": lambda *_: 0.0}, "observation returned a float: .* a tensor"),
        ({"reward": lambda *_: 0.0}, "reward returned a float: .* a tensor"),
        ({"terminal": lambda *_: False}, r"terminal returned a bool: .* a tensor \[2\]"),
        ({"truncated": lambda *_: False}, r"truncated returned a bool: .* a tensor \[2\]"),
    ],
)
def test_a_plain_mistake_of_an_environment_is_a_sentence(
    attributes: dict[str, Any], message: str
) -> None:
    """A wrong kind of attribute or result is refused; the message names it and what is right."""
    walk = Walk()
    vars(walk).update(attributes)
    with pytest.raises(RequestError, match=f"Walk.*{message}"):
        env = DifferentiableVectorEnv(walk, 2)
        env.reset(seed=0)
        env.step(torch.zeros(2, 1))
