"""Rows of the tables in ``docs/estimators.md``: problems whose variances are known exactly."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.distributions.discrete import Bernoulli
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.noise import antithetic
from pgtoolkit.envs.analytic.lqg.cost import LQGGradient
from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.expectation import expectation
from pgtoolkit.estimators.mixing import cross_fitted_weight, mix_gradients
from pgtoolkit.estimators.reference_problems import (
    GaussianProblem,
    quadratic,
    quadratic_measure_valued_variance,
)
from pgtoolkit.estimators.returns import gae, segment_discount
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window
from pgtoolkit.scripts.cli.formatting import markdown_row
from pgtoolkit.seeding import stream, stream_seed

F64 = torch.float64

ROUNDING = 1e-20
"""A measured variance up to this size is rounding error and is shown as 0."""

LQG_LABELS = {
    "reward_to_go": "score function, reward-to-go",
    "reward_to_go_value": "the same less the exact value",
    "gae": "GAE(0.95), exact value",
    "mixed": "mixed, of pathwise and the exact value's",
    "critic": "critic, exact Q",
    "wrong_critic": "critic, exact Q + a / 2 (biased)",
}

Q_ERROR = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.25), (0.0, 0.25, 0.0))
"""The matrix of ``a / 2`` over ``[s; 1; a]``."""

LEAVE_ONE_OUT_SIZE = 8
"""Samples of a batch with the leave-one-out baseline."""

K, BIAS, SIGMA = -0.4, 0.2, 0.3
"""Feedback gain, offset and standard deviation of the linear policy on LQG."""

GAMMA = 0.95


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """Estimates of the gradient by one parameter, by one estimator."""

    estimator: str
    parameter: str
    true_gradient: float
    exact: float | None
    """The exact variance; None where only the gradient is known."""
    sample: Tensor
    """``[M]`` independent estimates."""

    @property
    def mean_error(self) -> float:
        """The measured mean minus the true gradient, in standard errors."""
        error = float(self.sample.std()) / math.sqrt(len(self.sample))
        return (float(self.sample.mean()) - self.true_gradient) / error

    @property
    def variance(self) -> float:
        """The measured variance."""
        return float(self.sample.var())

    @property
    def variance_error(self) -> float:
        """The standard error of the measured variance, from the fourth moment."""
        squares = (self.sample - self.sample.mean()).square()
        return float(squares.std()) / math.sqrt(len(squares))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| estimator | by | gradient | error of the mean, s.e. | exact variance | measured |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        exact = "" if row.exact is None else f"{row.exact:.5g}"
        measured = f"{row.variance:.4g} ± {row.variance_error:.1g}"
        cells = (
            row.estimator,
            row.parameter,
            f"{row.true_gradient:.5g}",
            f"{row.mean_error:+.1f}",
            exact,
            measured if row.variance > ROUNDING else "0",
        )
        lines.append(markdown_row(cells))
    return "\n".join(lines)


def gaussian_rows(samples: int, seed: int) -> Iterator[Row]:
    """Rows for ``E[x^2]`` of a Gaussian with mean 1 and standard deviation 1, by both parameters.

    Each sample has its own copy of the parameters, so that one backward pass gives its gradient.
    """
    problem = quadratic(1.0, 1.0, 0.0)
    mean = torch.ones(samples, 1, dtype=F64, requires_grad=True)
    log_std = torch.zeros(samples, 1, dtype=F64, requires_grad=True)
    for name, surrogate, exact, size in gaussian_surrogates(problem, mean, log_std, seed):
        found = torch.autograd.grad(surrogate.sum(), [mean, log_std])
        whole = samples // size * size
        for by, gradient, truth, variance in zip(
            ("mean", "std"), found, problem.gradient, exact, strict=False
        ):
            yield Row(name, by, truth, variance, gradient[:whole].reshape(-1, size).mean(1))


def gaussian_surrogates(
    problem: GaussianProblem, mean: Tensor, log_std: Tensor, seed: int
) -> Iterator[tuple[str, Tensor, tuple[float, ...], int]]:
    """Every estimator's surrogate.

    Yields:
        Its name, the surrogate of each sample, the exact variances by mean and standard deviation
        (or by mean only), and the number of samples that are averaged into one estimate.
    """
    generator = stream(seed, "gaussian")
    noise = torch.randn(mean.shape, generator=generator, dtype=F64)
    q = DiagonalGaussian(mean, log_std)

    def score(b: float) -> tuple[float, float]:
        return problem.score_function_variance("mean", b), problem.score_function_variance("std", b)

    yield "score function", expectation(square, q, noise=noise), score(0.0), 1
    constant = expectation(square, q, noise=noise, baseline=4.0)
    yield "score function, b = 4 (optimal by mean)", constant, score(4.0), 1
    path = expectation(square, q, "pathwise", noise=noise)
    yield "pathwise", path, problem.pathwise_variance, 1
    mixed = expectation(square, q, "mixed", noise=noise, baseline=4.0, mix=7 / 9)
    yield "mixed, weight 7/9 (optimal by mean), b = 4", mixed, (28 / 9,), 1
    derivative = expectation(square, q, "measure_valued", noise=noise[None], generator=generator)
    yield "measure-valued", derivative, quadratic_measure_valued_variance(1.0, 1.0, 0.0), 1
    pair = DiagonalGaussian(mean.repeat(2, 1), log_std.repeat(2, 1))
    both = expectation(square, pair, "pathwise", noise=antithetic(noise)) / 2
    yield "pathwise, antithetic pair", both, (0.0, 8.0), 1

    def in_batches(tensor: Tensor) -> Tensor:
        """``[M, 1]`` to ``[batch size, number of batches, 1]``."""
        size, batches = LEAVE_ONE_OUT_SIZE, len(tensor) // LEAVE_ONE_OUT_SIZE
        return tensor[: batches * size].reshape(batches, size, 1).transpose(0, 1)

    batched = DiagonalGaussian(in_batches(mean), in_batches(log_std))
    others = expectation(square, batched, noise=in_batches(noise), baseline="leave_one_out")
    by_mean = problem.leave_one_out_variance("mean", LEAVE_ONE_OUT_SIZE)
    exact = by_mean, problem.leave_one_out_variance("std", LEAVE_ONE_OUT_SIZE)
    yield f"mean of {LEAVE_ONE_OUT_SIZE}, leave-one-out", others, exact, LEAVE_ONE_OUT_SIZE


def square(x: Tensor) -> Tensor:
    """``[..., 1]`` to ``[...]``."""
    return x[..., 0].square()


def bernoulli_rows(samples: int, seed: int) -> Iterator[Row]:
    """Rows for ``E[(z - 0.49)^2]`` of one Bernoulli variable, by its logit at 1."""
    p = 1 / (1 + math.exp(-1.0))
    truth = p * (1 - p) * (0.51**2 - 0.49**2)
    logits = torch.ones(samples, 1, dtype=F64, requires_grad=True)
    distribution = Bernoulli(logits)
    noise = distribution.draw_noise(stream(seed, "switch"))
    for method, exact in (
        ("score_function", 0.01184781),
        ("rebar", None),
        ("gumbel_softmax", None),
        ("straight_through", None),
    ):
        surrogate = expectation(
            lambda z: (z[..., 0].double() - 0.49) ** 2,
            distribution,
            method,  # type: ignore[arg-type]
            noise=noise,
            temperature=0.5,
        )
        (found,) = torch.autograd.grad(surrogate.sum(), logits)
        yield Row(method.replace("_", " "), "logit", truth, exact, found[:, 0])


def lqg_rows(samples: int, seed: int) -> Iterator[Row]:
    """Rows for the return of LQG, by gain ``K``, offset ``k`` and ``sigma`` of a linear policy."""
    env = LQG()
    found = lqg_estimates(env, samples, seed)
    truth = env.return_gradient(K, BIAS, SIGMA)
    for name, gradients in found.items():
        exact: LQGGradient | None = None
        if name == "wrong_critic":
            exact = env.gradient_moments(K, BIAS, SIGMA, "critic", q_error=Q_ERROR).variance
        elif name != "mixed":
            exact = env.gradient_moments(K, BIAS, SIGMA, name).variance  # type: ignore[arg-type]
        for index, by in enumerate(("K", "k", "sigma")):
            variance = None if exact is None else float(exact[index])
            label = LQG_LABELS.get(name, name.replace("_", " "))
            yield Row(label, by, float(truth[index]), variance, gradients[:, index])


def lqg_estimates(env: LQG, samples: int, seed: int) -> dict[str, Tensor]:
    """Every estimator's gradient of each trajectory, on the same episodes.

    Returns:
        Estimator to ``[N, 3]``, by ``K``, ``k`` and ``sigma``.
    """
    policy = linear_policy(env)
    vector = DifferentiableVectorEnv(env, samples, dtype=F64)
    generator = stream(seed, "action noise")
    noise = torch.randn(env.max_episode_steps, samples, 1, generator=generator, dtype=F64)
    rollout_state = reset(vector, seed=stream_seed(seed, "starts"), device=noise.device)
    window, _ = unroll(vector, policy, rollout_state, noise)
    objective = window_objective(window, torch.zeros_like(window.log_prob), GAMMA)
    by_action = action_gradient(objective, window)
    window = window.detach()
    recorder = GradientRecorder(policy)
    found: dict[str, dict[str, Tensor]] = {}
    for name, weight in score_weights(env, window, objective.detach()).items():
        with recorder.recording():
            surrogate = score_function_surrogate(policy, window, weight)
        found[name] = recorder.per_trajectory(surrogate)
    with recorder.recording():
        surrogate = pathwise_surrogate(policy, window, by_action)
    found["pathwise"] = recorder.per_trajectory(surrogate)
    for name, error in (("critic", 0.0), ("wrong_critic", 0.5)):
        with recorder.recording():
            surrogate = pathwise_surrogate(policy, window, critic_slope(env, window, error))
        found[name] = recorder.per_trajectory(surrogate)
    score = found["reward_to_go_value"]
    mix = cross_fitted_weight(score, found["pathwise"])
    found["mixed"] = mix_gradients(score, found["pathwise"], mix)
    return {name: columns(gradients) for name, gradients in found.items()}


def critic_slope(env: LQG, window: Window, error: float) -> Tensor:
    """``gamma^t d(Q_t(s_t, a_t) + error a_t)/da_t`` ``[T, N, 1]``, with the exact ``Q``."""
    time = torch.arange(window.num_steps).unsqueeze(1).expand_as(window.reward)
    state = LQGState(window.obs.flatten(0, 1), time.flatten())
    action = window.action.flatten(0, 1).requires_grad_()
    value = env.action_value(state, action, K, BIAS, SIGMA) + error * action[:, 0]
    (slope,) = torch.autograd.grad(value.sum(), action)
    discount = segment_discount(window.segment_end, GAMMA)
    return discount.unsqueeze(-1) * slope.reshape(window.action.shape)


def linear_policy(env: LQG) -> Policy:
    """The policy ``u = K s + k + sigma eps``, in float64."""
    policy = GaussianPolicy(env.observation_space, env.action_space, ()).double()
    assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
    head = policy.head.output
    with torch.no_grad():
        head.weight.fill_(K)
        head.bias.fill_(BIAS)
        policy.head.std.log_std.fill_(math.log(SIGMA))
    return policy


def score_weights(env: LQG, window: Window, objective: Tensor) -> dict[str, Tensor]:
    """Weights ``[T, N]`` of the score function, by the names of :meth:`LQG.gradient_moments`."""
    zeros = torch.zeros_like(window.reward)
    time = torch.arange(window.num_steps).unsqueeze(1).expand_as(zeros)
    state = LQGState(window.obs.flatten(0, 1), time.flatten())
    value = env.value(state, K, BIAS, SIGMA).reshape(zeros.shape)
    after = torch.cat([value[1:], zeros[:1]])
    flags = window.terminated, window.truncated
    advantage = gae(window.reward, value, after, *flags, gamma=GAMMA, lambda_=0.95)
    return {
        "score_function": objective.expand_as(zeros),
        "reward_to_go": matched_score_weight(window, zeros, zeros, GAMMA),
        "reward_to_go_value": matched_score_weight(window, zeros, value, GAMMA),
        "gae": segment_discount(window.segment_end, GAMMA) * advantage,
    }


def columns(gradients: dict[str, Tensor]) -> Tensor:
    """Gradients of a linear policy's parameters as ``[N, 3]``: by ``K``, ``k`` and ``sigma``."""
    weight, bias, log_std = (gradient.flatten(1) for gradient in gradients.values())
    return torch.cat([weight, bias, log_std / SIGMA], 1)
