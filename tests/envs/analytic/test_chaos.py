import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.open_loop import OpenLoopState
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError

F64 = torch.float64


def test_one_episode_by_hand() -> None:
    """Positions 1, 1.2 + .5, 2.04 - .1; only the last step has a reward."""
    env = Chaos(kappa=0.7, horizon=2)
    state = env.initial(1, torch.Generator())
    assert state.position.item() == 1.0
    first = env.transition(state, torch.tensor([[0.5]]), None)
    assert first.position.item() == pytest.approx(1.7) and not env.terminal(first).item()
    assert env.reward(state, torch.tensor([[0.5]]), first).item() == 0.0
    last = env.transition(first, torch.tensor([[-0.1]]), None)
    assert last.position.item() == pytest.approx(1.94) and env.terminal(last).item()
    paid = env.reward(first, torch.tensor([[-0.1]]), last).item()
    assert paid == pytest.approx(math.cos(0.7 * 1.94))


def test_derivatives() -> None:
    """Gradcheck at the last step, which has a reward, and at another one, which has none."""
    env, time = Chaos(horizon=3), torch.tensor([0, 2, 2])
    generator = torch.Generator().manual_seed(0)
    position, action = (
        torch.randn(3, 1, generator=generator, dtype=F64).requires_grad_() for _ in range(2)
    )

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        state = OpenLoopState(s, time)
        after = env.transition(state, a, None)
        return after.position, env.reward(state, a, after)

    assert torch.autograd.gradcheck(step, (position, action))


# rho 1.2, sigma .1, kappa 1, s0 1, mean 0: gradient, variance of pathwise, of the score function
# without and with the best baseline.
PUBLISHED = {
    5: {"pathwise_variance": 3.797032, "optimal_baseline_variance": 38.97017},
    10: {
        "gradient": 1.550916,
        "pathwise_variance": 273.8250,
        "score_function_variance": 344.8831,
        "optimal_baseline_variance": 299.7334,
    },
    20: {
        "gradient": -6.3e-6,
        "pathwise_variance": 17426.2,
        "score_function_variance": 1000.0,
    },
}


@pytest.mark.parametrize("horizon", PUBLISHED)
def test_published_values(horizon: int) -> None:
    """The exact gradient's moments equal the published digits; pathwise has no bias."""
    exact = Chaos(horizon=horizon).exact_gradient(0.0, 0.1).mean
    for name, expected in PUBLISHED[horizon].items():
        relative = 0.01 if abs(expected) < 1e-3 else 2e-6
        assert getattr(exact, name) == pytest.approx(expected, rel=relative), name
    assert exact.pathwise_bias == 0.0


@pytest.mark.parametrize(
    ("rho", "expected"), [(1.0, 111), (1.05, 23), (1.1, 18), (1.2, 12), (1.5, 7), (0.9, None)]
)
def test_published_crossovers(rho: float, expected: int | None) -> None:
    """The first horizon at which pathwise has more variance than the best score function."""
    assert Chaos(rho=rho).crossover_horizon(0.0, 0.1) == expected


def test_the_limit_of_rho_one_is_taken() -> None:
    """At rho = 1 the geometric sums are H, the limit of the formula for other rho."""
    at = Chaos(rho=1.0, horizon=7).exact_gradient(0.1, 0.2)
    near = Chaos(rho=1 + 1e-9, horizon=7).exact_gradient(0.1, 0.2)
    for exact, other in zip(at, near, strict=True):
        assert exact.gradient == pytest.approx(other.gradient, rel=1e-6)
        assert exact.pathwise_variance == pytest.approx(other.pathwise_variance, rel=1e-6)
    d = 7 * 0.2**2
    by_mean = -7 * math.exp(-d / 2) * math.sin(1 + 7 * 0.1)
    assert at.mean.gradient == pytest.approx(by_mean)


def test_pathwise_variance_grows_by_rho_squared_a_step_and_the_score_functions_does_not() -> None:
    """Beyond the crossover, where cosines average out: kappa^2 c_H^2 / 2 and H / (2 sigma^2)."""
    exact = [Chaos(horizon=h).exact_gradient(0.0, 0.1).mean for h in (40, 41)]
    assert exact[1].pathwise_variance / exact[0].pathwise_variance == pytest.approx(1.44, rel=1e-2)
    assert exact[1].score_function_variance == pytest.approx(41 / 0.02, rel=1e-6)


def measured_variances(env: Chaos, sigma: float, num_envs: int, seed: int) -> tuple[float, float]:
    """Variances of pathwise and of the score function with its best baseline, by the mean.

    The best constant ``b`` is the slope of the regression of ``f S`` on ``S``.
    """
    vector = DifferentiableVectorEnv(env, num_envs, dtype=F64)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(env.horizon, num_envs, 1, generator=generator, dtype=F64)
    mean = torch.zeros(num_envs, 1, dtype=F64, requires_grad=True)
    vector.reset(seed=seed)
    total = torch.zeros(num_envs, dtype=F64)
    for eps in noise.unbind(0):
        total = total + vector.step(mean + sigma * eps)[1]
    (pathwise,) = torch.autograd.grad(total.sum(), mean)
    score = noise.sum((0, 2)) / sigma
    pair = torch.cov(torch.stack([total.detach() * score, score]))
    return float(pathwise.var()), float(pair[0, 0] - pair[0, 1].square() / pair[1, 1])


@pytest.mark.parametrize("rho", [1.2, 1.5, 2.0])
def test_the_measured_crossover_is_the_closed_forms(rho: float) -> None:
    """20 000 trajectories a horizon, a relative error of some 1 % of each variance.

    The ratio of the two comes to no more than .914 before the crossover (rho 1.2, H = 10) and is at
    least 1.46 at it, so the horizon is exact, and one step is left for the tails.
    """
    predicted = Chaos(rho=rho).crossover_horizon(0.0, 0.1)
    assert predicted is not None
    for horizon in range(1, predicted + 2):
        pathwise, score = measured_variances(Chaos(rho=rho, horizon=horizon), 0.1, 20_000, horizon)
        if pathwise > score:
            break
    assert abs(horizon - predicted) <= 1 and pathwise > score


def test_a_constant_reward_never_crosses() -> None:
    """With kappa 0 every variance is 0, and rounding must not cause a crossover."""
    assert Chaos(kappa=0.0).crossover_horizon(0.3, 0.1) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": math.nan}, "rho is nan"),
        ({"kappa": "fast"}, "kappa is 'fast'"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": 2.5}, "horizon is 2.5"),
        ({"rho": 10.0, "horizon": 400}, "out of the range of floating point"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Chaos(**arguments)  # type: ignore[arg-type]
