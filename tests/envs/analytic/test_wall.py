import dataclasses
import math

import gymnasium
import pytest
import torch
from numpy.polynomial import Polynomial
from torch import Tensor

import pgtoolkit.envs  # noqa: F401  # registers
from pgtoolkit.envs.analytic.exact import phi
from pgtoolkit.envs.analytic.step import Step
from pgtoolkit.envs.analytic.wall import Wall, jump_moments
from pgtoolkit.envs.numpy_env import NumpyEnv
from pgtoolkit.errors import RequestError


def rewards(env: Wall, actions: Tensor) -> Tensor:
    """Rewards of one step with each action ``[N]``."""
    state = env.initial(len(actions), torch.Generator())
    action = actions.unsqueeze(-1)
    return env.reward(state, action, env.transition(state, action, None))


def test_the_reward_by_hand() -> None:
    """-(u - 1)^2, and 4 less beyond .5; the derivative is that of the parabola only."""
    actions = torch.tensor([-1.0, 0.5, 0.75, 2.0], requires_grad=True)
    found = rewards(Wall(), actions)
    assert found.tolist() == [-4.0, -0.25, -12.0625, -13.0]
    (gradient,) = torch.autograd.grad(found.sum(), actions)
    assert gradient.tolist() == [4.0, 1.0, 0.5, -2.0]


def test_derivatives_on_either_side() -> None:
    actions = torch.tensor([-0.3, 0.2, 0.8, 1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: rewards(Wall(), a), (actions,))
    assert Wall().gradient.reward == "approximate" and Wall().gradient.contacts == "stiff"


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (0.7, 0.4), (-2.0, 3.0)])
def test_the_bias_is_the_jump_times_the_density_at_the_wall(mean: float, sigma: float) -> None:
    """The bias by the mean is ``-jump phi(a) / sigma``; by sigma it is ``a`` times that."""
    env = Wall(target=0.3, wall=0.9, jump=1.7)
    a = (0.9 - mean) / sigma
    by_mean, by_sigma = env.exact_gradient(mean, sigma)
    assert by_mean.pathwise_bias == pytest.approx(-1.7 * phi(a) / sigma)
    assert by_sigma.pathwise_bias == pytest.approx(-1.7 * a * phi(a) / sigma)
    d = mean - 0.3
    assert by_mean.pathwise_mean == pytest.approx(-2 * d)
    assert by_mean.pathwise_variance == pytest.approx(4 * sigma**2)
    assert by_sigma.pathwise_mean == pytest.approx(-2 * sigma)
    assert by_sigma.pathwise_variance == pytest.approx(4 * d**2 + 8 * sigma**2)


def test_without_a_jump_it_is_the_published_quadratic() -> None:
    """(x - k)^2 at m = s = 1, k = -3, with the opposite sign."""
    by_mean, by_sigma = Wall(target=-3.0, jump=0.0).exact_gradient(1.0, 1.0)
    names = [
        *("gradient", "pathwise_variance", "score_function_variance"),
        *("optimal_baseline_variance", "optimal_baseline", "pathwise_bias"),
    ]
    found = [[getattr(by, name) for name in names] for by in (by_mean, by_sigma)]
    assert found[0] == pytest.approx([-8, 4, 495, 134, -19, 0])
    assert found[1] == pytest.approx([-2, 72, 1546, 664, -21, 0])


def test_a_jump_alone_is_the_step() -> None:
    """Two derivations, one by truncated moments and one by Stein's lemma, agree."""
    sigma, edge = 0.8, (0.3 - 0.1) / 0.8
    step = Step(threshold=0.3).exact_gradient(0.1, sigma)
    score = Polynomial([0.0, 1.0]) / sigma, Polynomial([-1.0, 0.0, 1.0]) / sigma
    for exact, S in zip(step, score, strict=True):
        found = jump_moments(Polynomial([0.0]), 1.0, edge, S, Polynomial([1.0]))
        assert dataclasses.asdict(found) == pytest.approx(dataclasses.asdict(exact), rel=1e-12)


def climb(name: str) -> float:
    """The exact return after 1000 steps of ascent along exact means, from N(0, 1), no sampling."""
    env, mean, log_sigma = Wall(), 0.0, 0.0
    for _ in range(1000):
        sigma = math.exp(log_sigma)
        by = env.exact_gradient(mean, sigma)
        mean += 0.01 * getattr(by.mean, name)
        log_sigma += 0.01 * sigma * getattr(by.sigma, name)
    return env.expected_return(mean, math.exp(log_sigma))


def test_pathwise_goes_through_the_wall_and_the_gradient_stays_before_it() -> None:
    """-12 is the return at the target, -1/4 the best there is, right before the wall."""
    assert climb("pathwise_mean") < -11.9
    assert -0.5 < climb("gradient") < -0.25


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="jump is nan"):
        Wall(jump=math.nan)


def test_every_argument_can_be_given_by_name() -> None:
    """All of Wall's arguments, ``target`` among them, can be given to ``gymnasium.make``."""
    env = gymnasium.make("pgtoolkit/Wall-v0", target=1.5, wall=0.25, jump=-1.0)
    view = env.unwrapped
    assert isinstance(view, NumpyEnv) and isinstance(view.env, Wall)
    assert (view.env.target, view.env.wall, view.env.jump) == (1.5, 0.25, -1.0)
