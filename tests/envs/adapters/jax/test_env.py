"""Environments in JAX have the values and gradients of the same environments in PyTorch."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.adapters.jax.env import JaxEnvironment, JaxState
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.files import load_class
from pgtoolkit.envs.states import VectorState
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

jax: Any = pytest.importorskip("jax")
jnp: Any = jax.numpy

PAGE = Path(__file__).parents[4] / "docs" / "jax.md"
EXAMPLES = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def first_example(folder: Path) -> JaxEnvironment:
    """The environment of the page's first example, loaded from a file as a user would."""
    file = folder / "jax_pendulum.py"
    file.write_text(EXAMPLES[0])
    env = load_class(str(file), "JaxPendulum")()
    assert isinstance(env, JaxEnvironment)
    return env


# One of each for the whole file: what is compiled once is compiled for all tests.
@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> JaxEnvironment:
    return first_example(tmp_path_factory.mktemp("narrow"))


@pytest.fixture(scope="module")
def wide_pendulum(tmp_path_factory: pytest.TempPathFactory) -> JaxEnvironment:
    """Another one, for tests with JAX in float64."""
    return first_example(tmp_path_factory.mktemp("wide"))


class WalkState(NamedTuple):
    x: Any
    obs: Any
    reward: Any
    done: Any
    other: Any = ()


class Walk(JaxEnvironment):
    """``x' = x + 0.1 sin x + a`` from 0; terminal where ``|x| > 1``; reward ``-x'^2``."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    max_episode_steps = 100

    def reset(self, key: Any) -> Any:
        return WalkState(jnp.zeros(()), jnp.zeros(1), 0.0, 0.0)

    def step(self, state: Any, action: Any) -> Any:
        x = state.x + 0.1 * jnp.sin(state.x) + action[0]
        return WalkState(x, 2 * x[None], -(x**2), (jnp.abs(x) > 1).astype(float), state.other)


class TorchWalk(DifferentiableEnv[Tensor]):
    observation_space, action_space = Walk.observation_space, Walk.action_space
    max_episode_steps = 100

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return state + 0.1 * torch.sin(state) + action

    def observation(self, state: Tensor) -> Tensor:
        return 2 * state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, 0].square()

    def terminal(self, state: Tensor) -> Tensor:
        return state[:, 0].abs() > 1


class Luggage(Walk):
    """A walk whose state has integers, booleans and random keys too."""

    def reset(self, key: Any) -> Any:
        other = {
            "steps": jnp.array(2**31 - 2),
            "large": jnp.array([2**32 - 1, 7], jnp.uint32),
            "small": jnp.array([[200, 1]], jnp.uint8),
            "flags": jnp.array([True, False]),
            "raw_key": key,
            "keys": jax.random.wrap_key_data(jnp.array([[1, 2], [3, 2**32 - 1]], jnp.uint32)),
        }
        return super().reset(key)._replace(other=other)

    def step(self, state: Any, action: Any) -> Any:
        other = state.other | {
            "steps": state.other["steps"] + 1,
            "keys": state.other["keys"][::-1],
            "raw_key": jax.random.split(state.other["raw_key"])[0],
        }
        return super().step(state._replace(other=other), action)


def vector(env: Any, num_envs: int, dtype: torch.dtype = torch.float64) -> DifferentiableVectorEnv:
    made = DifferentiableVectorEnv(env, num_envs, dtype=dtype)
    made.reset(seed=0)
    return made


def rewards_of(env: DifferentiableVectorEnv, actions: Tensor) -> Tensor:
    return torch.stack([env.step(action)[1] for action in actions])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.usefixtures("x64")
def test_equals_the_torch_pendulum(wide_pendulum: JaxEnvironment) -> None:
    ours, reference = vector(wide_pendulum, 4), vector(Pendulum(), 4)
    state = ours.get_state()
    # The leaves in their order: angle and speed first.
    reference.set_state(VectorState(state.state[0][:, :2], state.elapsed, state.generator_state))
    actions = (2 * noise(12, 4, 1)).requires_grad_()
    outcomes = []
    for env in (ours, reference):
        reached = [env.step(action)[:2] for action in actions]
        obs, reward = (torch.stack(x) for x in zip(*reached, strict=True))
        weight = noise(*obs.shape, seed=1)
        gradient = torch.autograd.grad((weight * obs).sum() + reward.sum(), actions)[0]
        outcomes.append((obs.detach(), reward.detach(), gradient))
    for found, expected in zip(*outcomes, strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_gradcheck(wide_pendulum: JaxEnvironment) -> None:
    values, words = vector(wide_pendulum, 4).get_state().state

    def transition(values: Tensor, action: Tensor) -> Tensor:
        return wide_pendulum.transition(JaxState(values, words), action, None).values

    inputs = values.requires_grad_(), noise(4, 1).requires_grad_()
    assert torch.autograd.gradcheck(transition, inputs)


@pytest.mark.usefixtures("x64")
def test_survivors_keep_their_gradient_when_others_reset() -> None:
    actions = torch.tensor([[0.6, 0.2], [0.7, -0.1], [0.3, 0.3], [0.1, 0.2]], dtype=torch.float64)
    gradients = []
    for env in (Walk(), TorchWalk()):
        leaf = actions.clone().requires_grad_()
        rewards = rewards_of(vector(env, 2), leaf.unsqueeze(-1))
        gradients.append(
            [torch.autograd.grad(r.sum(), leaf, retain_graph=True)[0] for r in rewards]
        )
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    # Environment 0 ended at step 1: the last reward has its new episode's actions, and no others.
    assert (gradients[0][-1] != 0).tolist() == [
        [False, True],
        [False, True],
        [True, True],
        [True, True],
    ]


def test_a_second_backward_gives_the_same_again(pendulum: JaxEnvironment) -> None:
    actions = noise(4, 4, 1).float().requires_grad_()
    total = rewards_of(vector(pendulum, 4, torch.float32), actions).sum()
    first, second = (torch.autograd.grad(total, actions, retain_graph=True)[0] for _ in range(2))
    assert first.abs().max() > 0 and torch.equal(first, second)
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(total, actions, create_graph=True)


@pytest.mark.parametrize("wide", [False, True])
def test_other_leaves_come_through_unharmed(wide: bool) -> None:
    """After three steps they equal those of plain JAX, for both of its integer widths."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", wide)
    try:
        env = Luggage()
        made = vector(env, 3, torch.float32)
        expected = env.jax_state(JaxState(*made.get_state().state))
        for _ in range(3):
            expected = jax.jit(jax.vmap(env.step))(expected, jnp.full((3, 1), 0.1))
            made.step(torch.full((3, 1), 0.1))
        found = env.jax_state(JaxState(*made.get_state().state))
        for name, array in found.other.items():
            assert array.dtype == expected.other[name].dtype
            assert (array == expected.other[name]).all(), name
        assert len({tuple(key) for key in np.asarray(found.other["raw_key"]).tolist()}) == 3
        np.testing.assert_allclose(found.x, expected.x, rtol=1e-6)
    finally:
        jax.config.update("jax_enable_x64", before)


def test_seeds_and_states(pendulum: JaxEnvironment) -> None:
    env = DifferentiableVectorEnv(pendulum, 4)
    first, again, other = (env.reset(seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(row) for row in first.tolist()}) == 4
    state, actions = env.get_state(), noise(5, 4, 1).float()
    rewards = rewards_of(env, actions)
    env.set_state(state)
    assert torch.equal(rewards_of(env, actions), rewards)
    assert torch.equal(
        rewards_of(vector(copy.deepcopy(pendulum), 4, torch.float32), actions),
        (rewards_of(vector(pendulum, 4, torch.float32), actions)),
    )


def test_views_that_begin_anywhere(pendulum: JaxEnvironment) -> None:
    """Tensors may have any alignment and strides."""
    values, words = vector(pendulum, 1, torch.float32).get_state().state
    expected = pendulum.transition(JaxState(values, words), torch.tensor([[0.5]]), None).values
    shifted = torch.cat([torch.zeros(1), values[0], torch.zeros(1)])[1:-1].unsqueeze(0)
    strided = torch.stack([values, values], -1)[..., 1]
    for view in (shifted, strided):
        action = torch.tensor([0.0, 0.5, 0.0])[1:2].unsqueeze(0)
        assert torch.equal(
            pendulum.transition(JaxState(view, words), action, None).values, expected
        )


def test_float64_with_jax_in_float32_is_refused(pendulum: JaxEnvironment) -> None:
    assert not jax.config.jax_enable_x64
    with pytest.raises(RequestError, match="reset makes theta in float32"):
        vector(pendulum, 4, torch.float64)


@pytest.mark.usefixtures("x64")
def test_float32_with_jax_in_float64(wide_pendulum: JaxEnvironment) -> None:
    """The state is stored in float32 and stepped in float64; the result is rounded."""
    state = vector(wide_pendulum, 4, torch.float32).get_state().state
    assert isinstance(state, JaxState) and state.values.dtype == torch.float32
    action = noise(4, 1).float().requires_grad_()
    wide = JaxState(state.values.double(), state.words)
    narrow_step = wide_pendulum.transition(state, action, None).values
    wide_step = wide_pendulum.transition(wide, action.double(), None).values
    assert torch.equal(narrow_step, wide_step.float())
    narrow, wide_gradient = (
        torch.autograd.grad(step.sum(), action)[0] for step in (narrow_step, wide_step)
    )
    torch.testing.assert_close(narrow, wide_gradient)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_over_a_thousand_windows() -> None:
    """Leaking one state or gradient in each window would add up to an eighth of a GB."""

    class Wide(Walk):
        def reset(self, key: Any) -> Any:
            return WalkState(jnp.zeros(2**11), jnp.zeros(1), 0.0, 0.0, ())

        def step(self, state: Any, action: Any) -> Any:
            x = state.x + action[0]
            return WalkState(x, x[:1], x[0], 0.0, ())

    env, action = vector(Wide(), 16, torch.float32), torch.zeros(16, 1, requires_grad=True)
    sizes, arrays = [], []
    for window in range(1001):
        env.detach()
        reward = env.step(action)[1] + env.step(action)[1]
        torch.autograd.grad(reward.sum(), action)
        if window in (100, 1000):
            sizes.append(resident_bytes())
            arrays.append(len(jax.live_arrays()))
    assert sizes[1] - sizes[0] < 2**25
    assert arrays[0] == arrays[1]


def test_two_updates_of_shac(pendulum: JaxEnvironment) -> None:
    agent = Shac(ShacConfig(num_envs=4, n_steps=4), DifferentiableVectorEnv(pendulum, 4), seed=0)
    before = [p.detach().clone() for p in agent.policy.parameters()]
    for _ in range(2):
        metrics = agent.update(agent.collect())
        assert all(torch.isfinite(torch.as_tensor(x)).all() for x in metrics.values())
    pairs = zip(before, agent.policy.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs)


class Plain(NamedTuple):
    obs: Any
    reward: Any
    done: Any


GOOD = Plain(np.zeros(1, np.float32), np.float32(0), np.bool_(False))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((GOOD.obs,), (GOOD.obs,), "has no obs"),
        (GOOD._replace(obs={"a": GOOD.obs}), GOOD, "has a dict as its obs"),
        (GOOD._replace(reward=GOOD.obs), GOOD, r"reward has shape \[1\]: it must be one number"),
        (GOOD._replace(done=GOOD.obs), GOOD, r"done has shape \[1\]: it must be one number"),
        (GOOD._replace(obs=np.zeros(1, np.int32)), GOOD, "obs is int32: it must be a float"),
        (GOOD, tuple(GOOD), "another structure than reset"),
        (GOOD, GOOD._replace(obs=np.zeros(2)), r"a obs of .* \[2\] where reset returns .* \[1\]"),
        (GOOD, GOOD._replace(done=np.float32(0)), r"a done of float32 \[\] where reset"),
    ],
)
def test_what_does_not_fit_is_refused(first: Any, second: Any, message: str) -> None:
    class Bad(Walk):
        def reset(self, key: Any) -> Any:
            return jax.tree.map(jnp.asarray, first)

        def step(self, state: Any, action: Any) -> Any:
            return jax.tree.map(jnp.asarray, second)

    with pytest.raises(RequestError, match=message):
        vector(Bad(), 2, torch.float32)


class TwoAxes(Walk):
    def reset(self, key: Any) -> Any:
        return super().reset(key)._replace(obs=jnp.zeros((1, 1)))


class PythonCondition(Walk):
    def step(self, state: Any, action: Any) -> Any:
        return super().step(state, action if state.x > 0 else -action)


class WholeReward(Walk):
    def step(self, state: Any, action: Any) -> Any:
        return super().step(state, action)._replace(reward=jnp.asarray(1))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TwoAxes, r"TwoAxes: the state's obs has the shape \[1, 1\], its observation_space \[1\]"),
        (PythonCondition, r"PythonCondition: JAX cannot trace reset and step .*use jax.numpy"),
        (WholeReward, r"WholeReward: step returns a reward of int\d\d \[\] where reset returns"),
    ],
)
def test_a_faulty_environment_is_named_in_one_sentence(kind: type[Walk], words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        vector(kind(), 2, torch.float32)
    assert "`pgtoolkit check-env`" in str(caught.value) and "\n" not in str(caught.value)


class Loops(Walk):
    """``x`` moves by the action three times, in a loop whose length JAX does not know."""

    def step(self, state: Any, action: Any) -> Any:
        body = lambda carry: (carry[0] + action[0], carry[1] + 1)  # noqa: E731
        x, _ = jax.lax.while_loop(lambda carry: carry[1] < 3, body, (state.x, 0))
        return state._replace(x=x, obs=x[None], reward=-(x**2))


def test_a_step_without_a_derivative_is_refused_when_it_is_needed() -> None:
    env = vector(Loops(), 2, torch.float32)
    action = torch.full((2, 1), 0.1, requires_grad=True)
    reward = env.step(action)[1]
    torch.testing.assert_close(reward, torch.full((2,), -0.09))
    with pytest.raises(
        RequestError, match=r"^Loops: JAX cannot differentiate its step .*while_loop"
    ):
        torch.autograd.grad(reward.sum(), action)


@pytest.mark.parametrize("code", [code for code in EXAMPLES if "from jax_pendulum" in code])
@pytest.mark.usefixtures("x64")
def test_the_pages_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jax_pendulum.py").write_text(EXAMPLES[0])
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(code, PAGE.name, "exec"), {"__name__": "example"})
