"""Warp kernels have the values and gradients of the same functions in PyTorch."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.envs.adapters.warp import WarpKernel
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.registry.files import load_class
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.user_code import import_file

pytest.importorskip("warp")

PAGE = Path(__file__).parents[3] / "docs" / "warp.md"
EXAMPLES = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(), re.M | re.S)

# Warp reads a kernel's source from its file, and what it compiled is found again by its source.
KERNELS = """
import warp as wp


@wp.kernel
def walk(state: wp.array2d(dtype=wp.float64), action: wp.array2d(dtype=wp.float64), scale: float,
         kind: wp.array(dtype=wp.int64), after: wp.array2d(dtype=wp.float64),
         cost: wp.array(dtype=wp.float64)):
    i = wp.tid()
    x = state[i, 0]
    if kind[i] == wp.int64(1):
        x = x + wp.float64(scale) * wp.sin(x)
    x = x + action[i, 0]
    after[i, 0] = x
    cost[i] = x * x


@wp.kernel
def scaled(x: wp.array(dtype=wp.vec2), y: wp.array(dtype=wp.vec2)):
    i = wp.tid()
    y[i] = x[i] * x[i][0]


@wp.kernel(enable_backward=False)
def forward_only(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    y[wp.tid()] = x[wp.tid()]
"""


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> DifferentiableEnv[Tensor]:
    """The environment of the page's first example, loaded from a file as a user would."""
    file = tmp_path_factory.mktemp("example") / "warp_pendulum.py"
    file.write_text(EXAMPLES[0])
    env = load_class(str(file), "WarpPendulum")()
    assert isinstance(env, DifferentiableEnv)
    return env


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("kernels") / "kernels.py"
    file.write_text(KERNELS)
    return import_file(file)


class Walk(DifferentiableEnv[Tensor]):
    """``x' = x + 0.1 sin x + a`` from 0; terminal where ``|x| > 1``; reward ``-x'^2``."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
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


class WarpWalk(Walk):
    def __init__(self, kernel: Any) -> None:
        self.kernel = WarpKernel(kernel, outputs=[(1,), ()])

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        kind = torch.ones(len(state), dtype=torch.int64)
        return self.kernel(state, action, 0.1, kind)[0]


def vector(env: Any, num_envs: int, dtype: torch.dtype = torch.float64) -> DifferentiableVectorEnv:
    made = DifferentiableVectorEnv(env, num_envs, dtype=dtype)
    made.reset(seed=0)
    return made


def rewards_of(env: DifferentiableVectorEnv, actions: Tensor) -> Tensor:
    return torch.stack([env.step(action)[1] for action in actions])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_torch_pendulum(pendulum: DifferentiableEnv[Tensor], dtype: torch.dtype) -> None:
    """Values and gradients, from equal starts for equal seeds."""
    actions = (2 * noise(12, 5, 1)).to(dtype).requires_grad_()
    outcomes = []
    for env in (vector(pendulum, 5, dtype), vector(Pendulum(), 5, dtype)):
        reached = [env.step(action)[:2] for action in actions]
        obs, reward = (torch.stack(x) for x in zip(*reached, strict=True))
        weight = noise(*obs.shape, seed=1).to(dtype)
        gradient = torch.autograd.grad((weight * obs).sum() + reward.sum(), actions)[0]
        outcomes.append((obs.detach(), reward.detach(), gradient))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    for found, expected in zip(*outcomes, strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_gradcheck(pendulum: DifferentiableEnv[Tensor]) -> None:
    inputs = noise(3, 2).requires_grad_(), noise(3, 1, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: pendulum.transition(s, a, None), inputs)


def test_several_outputs_integers_and_constants(kernels: Any) -> None:
    kernel, kind = WarpKernel(kernels.walk, outputs=[(1,), ()]), torch.tensor([1, 0, 1])
    state, action = noise(3, 1).requires_grad_(), noise(3, 1, seed=1).requires_grad_()
    after, cost = kernel(state, action, 0.25, kind)
    expected = state + action + 0.25 * kind.unsqueeze(-1) * torch.sin(state)
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(cost, expected[:, 0] ** 2)
    assert torch.autograd.gradcheck(lambda s, a: kernel(s, a, 0.25, kind), (state, action))


def test_vectors_and_strided_tensors(kernels: Any) -> None:
    x = noise(4, 6).float()[:, ::3].requires_grad_()
    (y,) = WarpKernel(kernels.scaled, outputs=[(2,)])(x)
    torch.testing.assert_close(y, x * x[:, :1])
    # A stride of 0 in the incoming gradient.
    found, expected = (torch.autograd.grad(z.sum(), x)[0] for z in (y, x * x[:, :1]))
    torch.testing.assert_close(found, expected)


def test_survivors_keep_their_gradient_when_others_reset(kernels: Any) -> None:
    actions = torch.tensor([[0.6, 0.2], [0.7, -0.1], [0.3, 0.3], [0.1, 0.2]], dtype=torch.float64)
    gradients = []
    for env in (WarpWalk(kernels.walk), Walk()):
        leaf = actions.clone().requires_grad_()
        rewards = rewards_of(vector(env, 2), leaf.unsqueeze(-1))
        gradients.append(
            [torch.autograd.grad(r.sum(), leaf, retain_graph=True)[0] for r in rewards]
        )
    for found, expected in zip(*gradients, strict=True):
        # The kernel's constant 0.1 is a float32.
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    # Environment 0 ended at step 1: the last reward has its new episode's actions, and no others.
    reached = (gradients[0][-1] != 0).tolist()
    assert reached == [[False, True], [False, True], [True, True], [True, True]]


def test_a_second_backward_gives_the_same_again(pendulum: DifferentiableEnv[Tensor]) -> None:
    actions = noise(4, 3, 1).requires_grad_()
    total = rewards_of(vector(pendulum, 3), actions).sum()
    first, second = (torch.autograd.grad(total, actions, retain_graph=True)[0] for _ in range(2))
    assert first.abs().max() > 0 and torch.equal(first, second)
    with pytest.raises(RequestError, match="cannot be differentiated again"):
        torch.autograd.grad(total, actions, create_graph=True)


def test_an_input_that_was_changed_in_place_is_noticed(
    pendulum: DifferentiableEnv[Tensor],
) -> None:
    """Otherwise the backward pass would use the changed values."""
    state, action = noise(3, 2), noise(3, 1).requires_grad_()
    after = pendulum.transition(state, action, None)
    state += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(after.sum(), action)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_stays_flat_over_a_thousand_windows(pendulum: DifferentiableEnv[Tensor]) -> None:
    """Leaking one state or gradient in each window would add up to an eighth of a GB."""
    count = 2**13
    env, action = vector(pendulum, count), torch.zeros(count, 1).double().requires_grad_()
    sizes = []
    for window in range(1001):
        env.detach()
        reward = env.step(action)[1] + env.step(action)[1]
        torch.autograd.grad(reward.sum(), action)
        if window in (100, 1000):
            sizes.append(resident_bytes())
    assert sizes[1] - sizes[0] < 2**25


def test_two_updates_of_shac(pendulum: DifferentiableEnv[Tensor]) -> None:
    agent = Shac(ShacConfig(num_envs=4, n_steps=4), DifferentiableVectorEnv(pendulum, 4), seed=0)
    before = [p.detach().clone() for p in agent.policy.parameters()]
    for _ in range(2):
        metrics = agent.update(agent.collect())
        assert all(torch.isfinite(torch.as_tensor(x)).all() for x in metrics.values())
    pairs = zip(before, agent.policy.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs)


def test_what_does_not_fit_is_refused(kernels: Any) -> None:
    with pytest.raises(RequestError, match="forward_only has no backward pass"):
        WarpKernel(kernels.forward_only, outputs=[()])
    scaled = WarpKernel(kernels.scaled, outputs=[(2,)])
    with pytest.raises(RequestError, match=r"argument x does not take.*torch\.float64"):
        scaled(noise(3, 2))
    with pytest.raises(RequestError, match="argument x does not take"):
        scaled(noise(3, 3).float())
    with pytest.raises(ValueError, match="scaled takes 2 arguments, not 2 inputs and 1 outputs"):
        scaled(torch.zeros(3, 2), torch.zeros(3, 2))
    walk = WarpKernel(kernels.walk, outputs=[(1,), ()])
    with pytest.raises(ValueError, match=r"one batch size, not of \[3, 2, 3\]"):
        walk(noise(3, 1), noise(2, 1), 0.1, torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("code", EXAMPLES[1:])
def test_the_pages_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warp_pendulum.py").write_text(EXAMPLES[0])
    monkeypatch.syspath_prepend(tmp_path)
    exec(compile(code, PAGE.name, "exec"), {"__name__": "example"})
