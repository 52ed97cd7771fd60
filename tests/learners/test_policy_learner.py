"""The policy learner: estimators and step rules in any pair, batches that are no windows."""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.config import PolicySettings
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.diagnostics.statistics import GradientStatistics
from pgtoolkit.distributions.base import Distribution
from pgtoolkit.distributions.clipped import ClippedGaussian
from pgtoolkit.distributions.gaussian import DiagonalGaussian
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_learner import PolicyLearner, describe
from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.learners.step_rules.base import Problem, StepRule
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.policies.factory import choose_head
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.rollouts.window import Window

F64 = torch.float64
CPU = torch.device("cpu")
NUM_STEPS, NUM_ENVS = 5, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(hidden: tuple[int, ...] = (8,), **settings: Any) -> Policy:
    env = Pendulum()
    return GaussianPolicy(env.observation_space, env.action_space, hidden, **settings)


def make_window(policy: Policy, dtype: torch.dtype = torch.float32) -> Window:
    env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS, dtype=dtype)
    noise = policy.draw_noise(NUM_STEPS, NUM_ENVS, generator=seeded(1)).to(dtype)
    return unroll(env, policy, reset(env, seed=0, device=CPU), noise)[0]


def make_signals(policy: Policy, window: Window, **settings: Any) -> Signals:
    zeros = torch.zeros_like(window.log_prob)
    given: dict[str, Any] = {
        "objective": window_objective(window, zeros, 0.9),
        "matched_weight": lambda s: matched_score_weight(s.window, zeros, zeros, 0.9),
        "q_value": lambda features, action: -action.square().sum(-1) * features[..., 0],
    }
    return Signals(policy, window, **(given | settings))


@final
class Descent:
    """Plain gradient descent, which keeps the problem that it was given."""

    def __init__(self, rate: float = 0.0) -> None:
        self.rate, self.num_steps = rate, 0
        self.look: Callable[[Problem], None] | None = None

    def step(self, module: nn.Module, problem: Problem | None = None) -> dict[str, Tensor]:
        if self.look is not None:
            assert problem is not None
            self.look(problem)
        torch.optim.SGD(module.parameters(), self.rate).step()
        self.num_steps += 1
        return {"train/learning_rate": torch.tensor(self.rate)}

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_steps = state["num_steps"]


def learner_of(policy: Policy, rule: StepRule | None = None, **settings: Any) -> PolicyLearner:
    entropy = settings.pop("entropy", EntropyBonus(absolute=0.2))
    return PolicyLearner(policy, rule or Descent(), GradientMonitor(1), entropy)


def parameters(policy: Policy) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in policy.parameters()]


def unchanged(policy: Policy, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


# Every estimator with every rule ------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("kind", ["adam", "descent"])
def test_every_pair_of_an_estimator_and_a_rule_takes_a_step(name: str, kind: str) -> None:
    policy = make_policy()
    rule: StepRule = Adam(policy, 0.01) if kind == "adam" else Descent(0.01)
    learner, before = learner_of(policy, rule), parameters(policy)
    metrics = learner.step(name, make_signals(policy, make_window(policy)))
    assert not unchanged(policy, before)
    assert {f"gradient/{name}/variance", "train/learning_rate", "train/std"} <= metrics.keys()
    assert {"train/approx_kl", "train/entropy_loss", "gradient/overhead"} <= metrics.keys()
    assert all(bool(value.isfinite().all()) for value in metrics.values())


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_step_raises_the_objective_of_its_problem(name: str) -> None:
    """The rule's problem and the gradient are of one function: ``grad`` is minus its derivative."""
    policy, found = make_policy(), list[Any]()

    def look(problem: Problem) -> None:
        expected = torch.autograd.grad(problem.objective(), list(policy.parameters()))
        for parameter, gradient in zip(policy.parameters(), expected, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, -gradient, rtol=1e-4, atol=1e-6)
        found.extend([problem, float(problem.objective().detach())])

    rule = Descent(1e-3)
    rule.look = look
    learner_of(policy, rule).step(name, make_signals(policy, make_window(policy)))
    problem, before = found
    assert float(problem.objective().detach()) > before


@pytest.mark.parametrize("name", CATALOGUE)
def test_numbers_that_are_not_finite_leave_the_parameters_as_they_were(name: str) -> None:
    policy = make_policy()
    rule = Descent(0.01)
    learner, before = learner_of(policy, rule), parameters(policy)
    window = make_window(policy)
    nan = torch.full_like(window.log_prob, math.nan)
    signals = make_signals(
        policy,
        window,
        objective=(nan * window.action[..., 0]).sum(0),
        weight=nan,
        q_value=lambda features, action: nan * action[..., 0],
    )
    with pytest.raises(NonFiniteError):
        learner.step(name, signals)
    assert unchanged(policy, before) and rule.num_steps == 0


def _overflow(module: nn.Module, grad_input: Any, grad_output: Any) -> tuple[Tensor, ...]:
    return (grad_input[0] * math.inf,)


def test_a_gradient_that_overflows_leaves_parameters_and_moments_as_they_were() -> None:
    """The surrogate is finite and its gradient is not: Adam refuses it by the parameter's name."""
    policy = make_policy()
    rule = Adam(policy, 0.01)
    learner, before = learner_of(policy, rule), parameters(policy)
    assert isinstance(policy.head, GaussianHead)
    policy.head.output.register_full_backward_hook(_overflow)  # as if by a faulty layer
    signals = make_signals(policy, make_window(policy))
    with pytest.raises(NonFiniteError, match="gradient of torso"):
        learner.step("score_function", signals)
    assert unchanged(policy, before) and rule.state_dict()["state"] == {}


# What a rule may evaluate: the divergence from the old policy -------------------------------------


def linear_problem(
    *, bounded: bool, look: Callable[[Policy, Window, Problem], None], rate: float = 0.0
) -> None:
    """One step of a linear policy on two features and two actions, in float64."""
    high = 1.0 if bounded else np.inf
    space = Box(-high, high, (2,), np.float32)
    policy = GaussianPolicy(Box(-9, 9, (2,)), space, (), log_std_init=-0.4).double()
    obs = torch.randn(4, 5, 2, generator=seeded(2), dtype=F64)
    noise = torch.randn(4, 5, 2, generator=seeded(3), dtype=F64)
    valid = torch.rand(4, 5, generator=seeded(4)) < 0.7
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(5), dtype=F64))
        distribution = policy(obs)
        pre_action = distribution.pre_action(noise)
    window = Window(
        obs=obs,
        next_obs=obs,
        noise=noise,
        pre_action=pre_action,
        action=distribution.squash(pre_action),
        log_prob=distribution.log_prob_of_pre_action(pre_action),
        reward=noise[..., 0],
        terminated=torch.zeros_like(valid),
        truncated=torch.zeros_like(valid),
        valid=valid,
    )
    rule = Descent(rate)
    rule.look = lambda problem: look(policy, window, problem)
    signals = Signals(policy, window, weight=noise[..., 1])
    learner_of(policy, rule).step("score_function", signals)


@pytest.mark.parametrize("bounded", [False, True])
def test_the_divergence_at_the_old_parameters_is_zero_and_flat(bounded: bool) -> None:
    def look(policy: Policy, window: Window, problem: Problem) -> None:
        divergence = problem.kl()
        assert float(divergence.detach()) == 0
        for gradient in torch.autograd.grad(divergence, list(policy.parameters())):
            assert float(gradient.abs().max()) < 1e-12

    linear_problem(bounded=bounded, look=look)


@pytest.mark.parametrize("bounded", [False, True])
def test_the_hessian_of_the_divergence_is_the_fisher_matrix(bounded: bool) -> None:
    """A diagonal Gaussian whose mean is W o + b, along a direction (V, v, w), over valid steps.

    ``F (V, v, w) = (mean of d o^T, mean of d, 2 w)`` with ``d = (V o + v) / sigma^2``. Squashing
    to bounds leaves it unchanged.
    """

    def look(policy: Policy, window: Window, problem: Problem) -> None:
        head = policy.head
        assert isinstance(head, GaussianHead) and head.std is not None
        leaves = [head.output.weight, head.output.bias, head.std.log_std]
        V, v, w = (torch.randn(x.shape, generator=seeded(6), dtype=F64) for x in leaves)
        slope = torch.autograd.grad(problem.kl(), leaves, create_graph=True)
        along = sum((g * x).sum() for g, x in zip(slope, (V, v, w), strict=True))
        assert isinstance(along, Tensor)
        found = torch.autograd.grad(along, leaves)
        obs = window.obs[window.valid]
        d = (obs @ V.T + v) / head.std.log_std.detach().exp().square()
        expected = (d.T @ obs / len(obs), d.mean(0), 2 * w)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)

    linear_problem(bounded=bounded, look=look)


@pytest.mark.parametrize("asked_as", ["old", "kl"])
def test_the_old_distribution_stays_that_of_the_parameters_before_the_step(asked_as: str) -> None:
    """Mean and standard deviation are moved in place; the divergence is then the closed form."""
    before: list[Any] = []

    def look(policy: Policy, window: Window, problem: Problem) -> None:
        if asked_as == "old":
            assert not problem.old.parameter.requires_grad
        else:
            problem.kl()
        before.extend([policy, window, problem, copy.deepcopy(policy)])

    linear_problem(bounded=False, look=look, rate=0.3)
    policy, window, problem, old_policy = before
    obs = window.obs[window.valid]
    one, other = old_policy(obs), policy(obs)
    assert isinstance(one, DiagonalGaussian) and isinstance(other, DiagonalGaussian)
    assert float((one.log_std - other.log_std).detach().abs().max()) > 0.01
    ratio = one.log_std.exp() / other.log_std.exp()
    shift = (one.mean - other.mean) / other.log_std.exp()
    expected = (0.5 * (ratio.square() - 1 + shift.square()) - ratio.log()).sum(-1).mean()
    torch.testing.assert_close(problem.kl(), expected)
    torch.testing.assert_close(problem.old.gaussian.log_std[window.valid], one.log_std.detach())


# Batches that are no windows ----------------------------------------------------------------------


def quadratic(distribution: Distribution) -> Tensor:
    """The surrogate ``-|mode|^2 + 0.1 entropy`` ``[M]``."""
    assert isinstance(distribution, TanhGaussian)
    noise = torch.zeros_like(distribution.mean)
    return -distribution.mode.square().sum(-1) + 0.1 * distribution.entropy(noise)


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_a_batch_of_three_or_more_is_measured_whatever_the_number_of_environments(
    size: int,
) -> None:
    policy = make_policy()
    obs = torch.randn(size, 3, generator=seeded(7))
    metrics = learner_of(policy).step_surrogate("critic", quadratic, obs)
    assert ("gradient/critic/variance" in metrics) == (size >= 3)
    expected = -quadratic(policy(obs)).mean().detach()
    torch.testing.assert_close(metrics["train/policy_gradient_loss"], expected)


def test_the_measured_gradient_of_a_batch_is_that_of_its_rows() -> None:
    """One backward for each row of normalised observations; their mean is what is followed."""
    policy = make_policy(normalize_observations=True)
    policy.normalizer.update(
        3 * torch.randn(4, 9, 3, generator=seeded(9)), torch.ones(4, 9, dtype=torch.bool)
    )
    obs = torch.randn(6, 3, generator=seeded(8))
    metrics = learner_of(policy).step_surrogate("mine", quadratic, obs)
    followed = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
    rows = [
        torch.autograd.grad(quadratic(policy(row)).sum(), list(policy.parameters()))
        for row in torch.split(obs, 1)
    ]
    names = [name for name, _ in policy.named_parameters()]
    per_row = {n: torch.stack([row[i] for row in rows]) for i, n in enumerate(names)}
    for gradient, column in zip(followed, per_row.values(), strict=True):
        torch.testing.assert_close(gradient, -column.mean(0), rtol=1e-4, atol=1e-6)
    expected = GradientStatistics.of(per_row).variance
    torch.testing.assert_close(metrics["gradient/mine/variance"], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("interval", [0, 1])
def test_a_batch_whose_surrogate_is_not_finite_changes_nothing(interval: int) -> None:
    policy, rule = make_policy(), Descent(0.1)
    learner, before = PolicyLearner(policy, rule, GradientMonitor(interval)), parameters(policy)
    factor = torch.tensor([1.0, 1.0, math.nan, 1.0])
    with pytest.raises(NonFiniteError) as caught:
        learner.step_surrogate("mine", lambda d: quadratic(d) * factor, torch.ones(4, 3))
    assert caught.value.env_index == 2
    assert unchanged(policy, before) and rule.num_steps == 0


def test_a_rule_on_a_batch_has_the_surrogate_and_the_divergence_of_the_batch() -> None:
    policy, rule, seen = make_policy(), Descent(0.05), list[Any]()
    rule.look = lambda problem: seen.extend([problem, float(problem.kl().detach())])
    obs = torch.randn(6, 3, generator=seeded(8))
    before = float(quadratic(policy(obs)).mean().detach())
    learner_of(policy, rule).step_surrogate("mine", quadratic, obs)
    problem, divergence = seen
    assert divergence == 0 < float(problem.kl().detach())
    after = float(problem.objective().detach())
    assert after == pytest.approx(float(quadratic(policy(obs)).mean().detach()))
    assert after > before


# The learner itself -------------------------------------------------------------------------------


def test_an_update_is_counted_and_the_normaliser_sees_its_window_at_the_end() -> None:
    """The normaliser is updated with valid steps only, after the step of the rule."""
    policy = make_policy(normalize_observations=True)
    normalizer = policy.normalizer
    assert isinstance(normalizer, ObservationNormalizer)
    learner, window = learner_of(policy), make_window(policy)
    window.valid[3:, 0] = False
    with learner.updating(window):
        assert float(normalizer.count) == 0
        learner.step("pathwise", make_signals(policy, window))
        assert float(normalizer.count) == 0
    assert float(normalizer.count) == NUM_STEPS * NUM_ENVS - 2
    rows = window.obs.detach()[window.valid].double()
    torch.testing.assert_close(normalizer.mean, rows.mean(0))
    assert learner.monitor.num_updates == 1


def test_the_settings_of_an_agent_make_the_learner() -> None:
    config = ShacConfig(
        learning_rate=0.2,
        adam_betas=(0.5, 0.6),
        max_grad_norm=3.0,
        diagnostics_interval=7,
        ent_coef=0.25,
        ent_coef_relative=0.5,
    )
    policy = make_policy()
    learner = PolicyLearner.of(config, policy, lambda: 0.5)
    assert isinstance(learner.rule, Adam)
    assert learner.rule.learning_rate == pytest.approx(0.1)  # linear, halfway
    assert learner.rule.max_grad_norm == 3.0
    assert learner.rule.optimizer.defaults["betas"] == (0.5, 0.6)
    assert learner.monitor.interval == 7
    assert learner.entropy == EntropyBonus(0.25, 0.5)


def test_a_saved_learner_goes_on_exactly() -> None:
    """Policy, moments of the rule, and the monitor's schedule and running means."""
    learners = []
    for seed in (0, 1):
        policy = make_policy(generator=seeded(seed))
        learners.append(PolicyLearner(policy, Adam(policy, 0.05), GradientMonitor(3)))
    one, other = learners

    def update(learner: PolicyLearner) -> dict[str, Tensor]:
        window = make_window(learner.policy)
        with learner.updating(window):
            return learner.step("pathwise", make_signals(learner.policy, window))

    for _ in range(2):
        update(one)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for _ in range(3):
        metrics = update(one), update(other)
        assert metrics[0].keys() == metrics[1].keys()
        for tag in metrics[0].keys() - {"gradient/overhead"}:
            assert torch.equal(metrics[0][tag], metrics[1][tag]), tag
    assert unchanged(one.policy, parameters(other.policy))


def test_a_policy_on_a_window_is_described_in_numbers() -> None:
    """Standard deviation 1/2, a fourth of the actions saturated, one step not valid."""
    pre_action = torch.tensor([[[3.0], [0.5]], [[-0.5], [-1.0]], [[9.0], [0.0]]])
    valid = torch.tensor([[True, True], [True, True], [False, False]])
    bound = torch.ones(1)
    shape = torch.zeros_like(pre_action)
    old = TanhGaussian(shape, shape, -bound, bound)
    new = TanhGaussian(shape, shape + math.log(0.5), -bound, bound)
    window = Window(
        obs=shape,
        next_obs=shape,
        noise=shape,
        pre_action=pre_action,
        action=torch.tanh(pre_action),
        log_prob=old.log_prob_of_pre_action(pre_action),
        reward=shape[..., 0],
        terminated=~valid,
        truncated=~valid,
        valid=valid,
    )
    found = {tag: float(value) for tag, value in describe(new, window).items()}
    assert found["train/std"] == pytest.approx(0.5)
    assert found["train/saturated_actions"] == pytest.approx(0.25)
    # The entropy of N(0, 1/4) and, at zero noise, the slope of tanh at 0, which is 1.
    assert found["train/entropy_loss"] == pytest.approx(
        -(math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e))
    )
    squares = np.array([9.0, 0.25, 0.25, 1.0])
    log_ratio = math.log(2) - 1.5 * squares  # log N(u; 0, 1/4) - log N(u; 0, 1)
    expected = float(np.mean(np.exp(log_ratio) - 1 - log_ratio))
    assert found["train/approx_kl"] == pytest.approx(expected, rel=1e-5)


def test_clipped_actions_are_those_that_are_drawn_beyond_the_bounds() -> None:
    """Two of four valid entries: 3 and -1.5 for bounds of -1 and 1; at a bound nothing is cut."""
    window = make_window(make_policy()).detach()
    pre_action = torch.zeros_like(window.pre_action)
    pre_action[0, :3, 0] = torch.tensor([3.0, -1.5, 1.0])
    pre_action[1] = 9.0
    valid = torch.zeros_like(window.valid)
    valid[0, :4] = True
    window = dataclasses.replace(window, pre_action=pre_action, valid=valid)
    zero, bound = torch.zeros_like(pre_action), torch.ones(1)
    found = describe(ClippedGaussian(zero, zero, -bound, bound), window)
    assert float(found["train/clipped_actions"]) == 0.5
    assert "train/saturated_actions" not in found
    # The same in a box elsewhere: what counts is the action 15 + 5 u between 10 and 20.
    offset = ClippedGaussian(zero, zero, 10 * bound, 20 * bound)
    assert float(describe(offset, window)["train/clipped_actions"]) == 0.5
    # Without an upper bound 11 + 3 is allowed and 11 - 1.5 is not; without width none is clipped.
    half_open = ClippedGaussian(zero, zero, 10 * bound, math.inf * bound)
    assert float(describe(half_open, window)["train/clipped_actions"]) == 0.25
    constant = ClippedGaussian(zero, zero, 10 * bound, 10 * bound)
    assert float(describe(constant, window)["train/clipped_actions"]) == 0


def test_a_divergence_without_a_closed_form_uses_the_noise_of_the_batch() -> None:
    """A mixture's: zero at the old parameters to rounding, and refused without noise."""
    head = choose_head(PolicySettings(distribution="mixture"), Pendulum().action_space)
    policy = Policy(Pendulum().observation_space, head, (8,))
    obs = torch.randn(4, 5, 3, generator=seeded())
    noise = policy.draw_noise(4, 5, generator=seeded(1))
    problem = Problem(policy, obs, lambda at: at.entropy(noise).sum(0), noise=noise)
    assert float(problem.kl().detach().abs()) < 1e-6
    with pytest.raises(ValueError, match="noise"):
        Problem(policy, obs, lambda at: at.entropy(noise).sum(0)).kl()
