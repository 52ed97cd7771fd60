import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.analytic.lqg.system import psd_root
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError


def random_system(n: int, m: int, seed: int) -> LQG:
    rng = np.random.default_rng(seed)

    def psd(size: int, rank: int) -> np.ndarray:
        root = rng.normal(size=(size, rank))
        return 0.3 * root @ root.T

    return LQG(
        A=0.5 * rng.normal(size=(n, n)),
        B=rng.normal(size=(n, m)),
        Q=psd(n, n),
        R=psd(m, m),
        Qf=psd(n, 1),
        m0=rng.normal(size=n),
        P0=psd(n, 1),
        W=psd(n, n),
        horizon=4,
        gamma=0.9,
    )


def random_policy(env: LQG, seed: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, m = env.system.B.shape
    rng = np.random.default_rng(seed)
    return 0.3 * rng.normal(size=(m, n)), rng.normal(size=m), rng.uniform(0.2, 0.6, size=m)


def test_reference_values() -> None:
    """The reference values, derived by cumulants and checked by 2.4e7 samples."""
    env = LQG()
    assert env.expected_return(-0.4, 0.2, 0.3) == pytest.approx(-3.5681227853, abs=1e-9)
    gradient = env.return_gradient(-0.4, 0.2, 0.3)
    assert gradient.K.item() == pytest.approx(-4.52081375, abs=1e-8)
    assert gradient.k.item() == pytest.approx(-4.73344223, abs=1e-8)
    assert gradient.sigma.item() == pytest.approx(-1.29775712, abs=1e-8)


def test_the_mini_case_of_two_steps() -> None:
    gradient = LQG(horizon=2).return_gradient(-0.4, 0.2, 0.3)
    assert gradient.K.item() == pytest.approx(-1.928908125, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "seed"), [(2, 2, 0), (3, 2, 1), (1, 3, 2), (4, 1, 3)])
def test_the_gradient_against_finite_differences(n: int, m: int, seed: int) -> None:
    env = random_system(n, m, seed)
    policy, step = random_policy(env), 1e-5
    for which, exact in enumerate(env.return_gradient(*policy)):
        for index in np.ndindex(*exact.shape):
            ends = []
            for sign in (1, -1):
                moved = [array.copy() for array in policy]
                moved[which][index] += sign * step
                ends.append(env.expected_return(*moved))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
                float(exact[index]), rel=1e-6, abs=1e-7
            )


def monte_carlo(env: LQG, policy: tuple[Any, Any, Any], num_envs: int) -> tuple[Tensor, ...]:
    """Per-trajectory returns, and their pathwise gradients, by way of the vector environment."""
    vector = DifferentiableVectorEnv(env, num_envs, dtype=torch.float64)
    n, m = env.system.B.shape
    # A copy of the parameters for each trajectory: the gradient of the sum is all gradients.
    K, k, sigma = (
        torch.as_tensor(p, dtype=torch.float64).expand(num_envs, *shape).clone().requires_grad_()
        for p, shape in zip(policy, ((m, n), (m,), (m,)), strict=True)
    )
    generator = torch.Generator().manual_seed(5)
    obs, _ = vector.reset(seed=4)
    total = torch.zeros(num_envs, dtype=torch.float64)
    for t in range(env.system.horizon):
        noise = torch.randn(num_envs, m, generator=generator, dtype=torch.float64)
        action = (K @ obs.unsqueeze(-1)).squeeze(-1) + k + sigma * noise
        obs, reward, terminated, truncated, _ = vector.step(action)
        total = total + env.system.gamma**t * reward
        last = t == env.system.horizon - 1
        assert bool((terminated == last).all()) and bool((truncated == last).all())
    return total.detach(), *torch.autograd.grad(total.sum(), [K, k, sigma])


@pytest.mark.parametrize("env", [LQG(), random_system(3, 2, 1)], ids=["reference", "3x2"])
def test_monte_carlo_agrees(env: LQG) -> None:
    policy = random_policy(env)
    samples = monte_carlo(env, policy, 100_000)
    exact = env.return_gradient(*policy)
    truths = [torch.tensor(env.expected_return(*policy)), *exact]
    for sample, truth in zip(samples, truths, strict=True):
        error = sample.std(0) / math.sqrt(len(sample))
        assert bool(((sample.mean(0) - truth).abs() < 4.5 * error).all())


def test_monte_carlo_error_is_small_enough_to_mean_something() -> None:
    policy = (np.array([[-0.4]]), np.array([0.2]), np.array([0.3]))
    _, by_K, by_k, by_sigma = monte_carlo(LQG(), policy, 100_000)
    # The exact variances of the pathwise gradient. The relative error of a
    # sample variance is sqrt((kurtosis - 1) / N), taken from the sample.
    for sample, variance in ((by_K, 14.33524067), (by_k, 6.64592513), (by_sigma, 7.79779941)):
        centred = sample - sample.mean()
        spread = centred.square().std() / math.sqrt(len(sample))
        assert abs(sample.var() - variance) < 4.5 * spread


def test_derivatives() -> None:
    env = random_system(3, 2, 0)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    time = torch.tensor([0, 2, 3, 1])  # one of them is at the last step

    def step(position: Tensor, action: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        state = LQGState(position, time)
        after = env.transition(state, action, noise)
        return after.position, env.observation(after), env.reward(state, action, after)

    assert torch.autograd.gradcheck(step, (draw(4, 3), draw(4, 2), draw(4, 3)))


def test_the_terminal_cost_is_paid_once_at_the_end() -> None:
    env = LQG(horizon=2, Qf=10.0, P0=0.0, W=0.0, gamma=0.5)
    state = env.initial(1, torch.Generator())
    action = torch.tensor([[1.0]])
    first = env.transition(state, action, None)
    assert env.reward(state, action, first).item() == pytest.approx(-1.1)
    assert not env.terminal(first).item()
    last = env.transition(first, action, None)
    s1, s2 = 1.4, 0.9 * 1.4 + 0.5
    expected = -(s1**2 + 0.1) - 0.5 * 10 * s2**2
    assert env.reward(first, action, last).item() == pytest.approx(expected, rel=1e-6)
    assert env.terminal(last).item()


def test_without_noise_there_is_no_noise_shape() -> None:
    assert LQG(W=0.0).noise_shape is None and LQG().noise_shape == (1,)
    state = LQG(W=0.0, P0=0.0).initial(3, torch.Generator())
    assert state.position.flatten().tolist() == [1.0] * 3


def test_roots_of_singular_matrices() -> None:
    root = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    for matrix in (root @ root.T, torch.zeros(2, 2, dtype=torch.float64)):
        half = psd_root(matrix)
        assert torch.allclose(half @ half.T, matrix, atol=1e-12)


def test_scalars_stand_for_multiples_of_the_identity() -> None:
    env = LQG(A=[[1, 0.1], [0, 1]], B=[[0], [0.1]], Q=2, P0=0, W=0, m0=3)
    assert env.system.Q.tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert env.system.m0.tolist() == [3.0, 3.0]
    assert env.observation_space.shape == (2,) and env.action_space.shape == (1,)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"A": [[1.0, 2.0]]}, r"A has shape \[1, 2\], and must have \[1, 1\]"),
        ({"A": [1.0, 2.0]}, "a matrix as a list of rows"),
        ({"A": "x"}, "A is not a number"),
        ({"A": [[1.0], [1.0, 2.0]]}, "A is not a number"),
        ({"B": math.nan}, "B is not finite"),
        ({"Q": -1.0}, "Q is not positive semidefinite"),
        ({"A": np.eye(2), "B": np.eye(2), "W": [[1, 2], [0, 1]]}, "W is not symmetric"),
        ({"A": np.eye(2), "B": np.eye(2), "P0": [[1, 2], [2, 1]]}, "P0 is not positive semidef"),
        ({"m0": [1.0, 2.0]}, r"m0 has shape \[2\]"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": 2.5}, "horizon is 2.5"),
        ({"gamma": 1.5}, "gamma is 1.5"),
    ],
)
def test_bad_systems_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LQG(**kwargs)


def test_bad_policies_are_refused() -> None:
    with pytest.raises(RequestError, match="K has shape"):
        LQG().expected_return([[1.0, 2.0]], 0.0, 0.1)


def test_three_dimensions_are_not_drawn() -> None:
    env = random_system(3, 2, 0)
    state = env.initial(1, torch.Generator().manual_seed(0))
    with pytest.raises(RequestError, match="does not draw itself"):
        env.render(state, 0)
