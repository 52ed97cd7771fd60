"""Tests of gradients by an estimator: the followed one, and those measured beside it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.estimators.surrogates import (
    action_gradient,
    matched_score_weight,
    pathwise_surrogate,
    score_function_surrogate,
    window_objective,
)
from pgtoolkit.learners.entropy import EntropyBonus
from pgtoolkit.learners.policy_step import available, backward, measure
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.rollouts.rollout import collect, reset, unroll
from pgtoolkit.rollouts.window import Window

CPU = torch.device("cpu")
GAMMA = 0.9
NUM_STEPS = 5
BONUS = EntropyBonus(absolute=0.3)


def make_policy() -> Policy:
    env = Pendulum()
    return GaussianPolicy(env.observation_space, env.action_space, (8,))


def make_window(policy: Policy, *, num_envs: int = 8, graph: bool = True) -> Window:
    env = DifferentiableVectorEnv(Pendulum(), num_envs)
    noise = policy.draw_noise(NUM_STEPS, num_envs, generator=torch.Generator().manual_seed(1))
    rollout = unroll if graph else collect
    return rollout(env, policy, reset(env, seed=0, device=CPU), noise)[0]


def zeros(window: Window) -> Tensor:
    return torch.zeros_like(window.log_prob)


def matched_weight(window: Window) -> Tensor:
    return matched_score_weight(window, zeros(window), zeros(window), GAMMA)


def make(policy: Policy, window: Window, **settings: Any) -> Signals:
    given: dict[str, Any] = {
        "objective": window_objective(window, zeros(window), GAMMA),
        "matched_weight": lambda signals: matched_weight(signals.window),
        "q_value": lambda features, action: -(action * features[..., :1]).square().sum(-1),
    }
    return Signals(policy, window, **(given | settings))


def run(name: str, signals: Signals, *, interval: int = 1, **settings: Any) -> dict[str, Tensor]:
    given: dict[str, Any] = {"monitor": GradientMonitor(interval), "entropy": BONUS}
    return backward(name, signals, **(given | {"divisor": NUM_STEPS} | settings))


def gradients(policy: Policy) -> dict[str, Tensor]:
    found = {}
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
    return found


def per_trajectory(policy: Policy, window: Window, surrogate: Any) -> dict[str, Tensor]:
    """Gradients of a stand-alone surrogate and the bonus, divided by the steps."""
    recorder = GradientRecorder(policy)
    with recorder.recording():
        values = surrogate(policy)
        bonus = BONUS.bonus(policy(window.obs.detach()), window.detach())
    return recorder.per_trajectory((values + bonus) / window.num_steps)


def assert_statistics(metrics: dict[str, Tensor], name: str, expected: dict[str, Tensor]) -> None:
    statistics = GradientStatistics.of(expected)
    for what in ("variance", "signal", "norm"):
        found = metrics[f"gradient/{name}/{what}"]
        torch.testing.assert_close(found, getattr(statistics, what), rtol=1e-4, atol=1e-7)


# What is followed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_mean_of_what_is_measured_is_the_gradient_that_is_followed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are equal bit for bit, and equal up to rounding to those without a measurement."""
    policy, measured = make_policy(), []
    recorded = GradientRecorder.per_trajectory

    def record(self: Any, values: Tensor, **settings: Any) -> dict[str, Tensor]:
        measured.append(recorded(self, values, **settings))
        return measured[-1]

    monkeypatch.setattr(GradientRecorder, "per_trajectory", record)
    metrics = run(name, make(policy, make_window(policy)))
    followed = gradients(policy)
    for key, gradient in followed.items():
        assert torch.equal(gradient, -measured[0][key].mean(0))
        assert float(gradient.abs().max()) > 0
    assert_statistics(metrics, name, measured[0])
    unmeasured = make_policy()
    assert not any(
        tag.endswith("variance")
        for tag in run(name, make(unmeasured, make_window(unmeasured)), interval=0)
    )
    for key, gradient in gradients(unmeasured).items():
        torch.testing.assert_close(gradient, followed[key], rtol=1e-4, atol=1e-6)


def test_what_is_followed_is_the_stand_alone_surrogate_with_the_bonus() -> None:
    """Minus the mean over trajectories, divided by the steps, by a plain backward."""
    policy = make_policy()
    run("pathwise", make(policy, make_window(policy)), interval=0)
    found = gradients(policy)
    window = make_window(policy)
    weight = action_gradient(window_objective(window, zeros(window), GAMMA), window)
    bonus = BONUS.bonus(policy(window.obs.detach()), window.detach())
    policy.zero_grad()
    surrogate = pathwise_surrogate(policy, window.detach(), weight) + bonus
    torch.autograd.backward(-surrogate.mean() / NUM_STEPS)
    for name, gradient in gradients(policy).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("interval", [0, 1])
def test_a_distribution_that_was_used_before_changes_no_gradient(interval: int) -> None:
    """The earlier pass was not recorded, so the measurement must not rely on it."""
    found = []
    for used_before in (False, True):
        policy = make_policy()
        signals = make(policy, make_window(policy))
        if used_before:
            assert signals.distribution.mode.shape == (NUM_STEPS, 8, 1)
        run("pathwise", signals, interval=interval)
        found.append(gradients(policy))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_second_step_on_the_same_signals_is_at_the_new_parameters() -> None:
    """The action gradients stay; the surrogate is that of the policy as it is now."""
    policy = make_policy()
    window = make_window(policy)
    signals = make(policy, window)
    run("pathwise", signals)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    run("pathwise", signals)
    found = gradients(policy)
    expected = per_trajectory(
        policy, window, lambda p: pathwise_surrogate(p, window.detach(), signals.action_gradient)
    )
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, -expected[name].mean(0), rtol=1e-4, atol=1e-6)


def test_the_loss_is_minus_the_mean_objective_a_step() -> None:
    policy = make_policy()
    window = make_window(policy)
    metrics = run("pathwise", make(policy, window))
    expected = -window_objective(window.detach(), zeros(window), GAMMA).mean() / NUM_STEPS
    torch.testing.assert_close(metrics["train/policy_gradient_loss"], expected)


# What is measured beside it -----------------------------------------------------------------------


def test_the_score_function_beside_pathwise_is_the_stand_alone_one() -> None:
    """Both estimators' statistics and their bias equal those computed one trajectory at a time."""
    policy = make_policy()
    metrics = run("pathwise", make(policy, make_window(policy)))
    window = make_window(policy)
    weight = action_gradient(window_objective(window, zeros(window), GAMMA), window)
    plain = window.detach()
    score = per_trajectory(
        policy, window, lambda p: score_function_surrogate(p, plain, matched_weight(plain))
    )
    pathwise = per_trajectory(policy, window, lambda p: pathwise_surrogate(p, plain, weight))
    assert_statistics(metrics, "score_function", score)
    assert_statistics(metrics, "pathwise", pathwise)
    bias = GradientStatistics.of(gradient_difference(score, pathwise)).signal
    torch.testing.assert_close(metrics["gradient/bias"], bias, rtol=1e-3, atol=1e-6)


def test_measuring_others_leaves_the_followed_gradient_as_it_was() -> None:
    """The score function with pathwise beside it, and on a plain window without."""
    found = []
    for graph in (True, False):
        policy = make_policy()
        window = make_window(policy, graph=graph)
        metrics = run("score_function", make(policy, window))
        assert ("gradient/pathwise/variance" in metrics) == graph
        assert "gradient/pathwise/missing" not in metrics
        found.append(gradients(policy))
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-5, atol=1e-6)


def test_an_agents_own_weight_is_followed_and_the_matched_one_compared() -> None:
    """The own weight is three times the matched one: nine times its variance, another bias."""
    policy, metrics = make_policy(), []
    for factor in (None, 3.0):
        window = make_window(policy)
        own = None if factor is None else factor * matched_weight(window)
        metrics.append(
            run("score_function", make(policy, window, weight=own), entropy=EntropyBonus())
        )
    matched, own_weight = metrics
    tag = "gradient/score_function/variance"
    torch.testing.assert_close(own_weight[tag], 9 * matched[tag], rtol=1e-4, atol=0)
    for name in ("bias", "bias_z", "cosine", "variance_ratio"):
        torch.testing.assert_close(
            own_weight[f"gradient/{name}"], matched[f"gradient/{name}"], rtol=1e-3, atol=1e-6
        )
    assert not any("matched" in tag for tag in own_weight)


@pytest.mark.parametrize("name", ["score_function", "pathwise", "critic"])
def test_an_own_weight_without_a_matched_one_is_measured_and_not_compared(name: str) -> None:
    """The two would have other objectives, and their difference would mean nothing."""
    policy = make_policy()
    window = make_window(policy)
    signals = make(policy, window, weight=matched_weight(window), matched_weight=None)
    metrics = run(name, signals)
    for other in (name, *CATALOGUE[name].beside):
        assert f"gradient/{other}/variance" in metrics
    assert "gradient/bias" not in metrics


def test_the_critic_has_the_score_function_beside_it_where_it_has_a_weight() -> None:
    policy = make_policy()
    metrics = run("critic", make(policy, make_window(policy)))
    assert {"gradient/critic/variance", "gradient/score_function/variance"} <= metrics.keys()
    alone = run("critic", make(policy, make_window(policy), matched_weight=None))
    assert "gradient/critic/variance" in alone
    assert "gradient/score_function/variance" not in alone


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_measured_step_says_which_estimator_it_follows(name: str) -> None:
    policy = make_policy()
    signals = make(policy, make_window(policy))
    metrics = run(name, signals)
    followed = [tag for tag in metrics if tag.endswith("/followed")]
    assert followed == [f"gradient/{name}/followed"]
    unmeasured = run(name, signals, interval=0)
    assert not any(tag.endswith("/followed") for tag in unmeasured)


@pytest.mark.parametrize("fault", ["not finite", "no path"])
def test_pathwise_that_cannot_be_measured_is_reported_missing(fault: str) -> None:
    """dJ/du is NaN, or no path joins action and objective; the score function goes on."""
    policy = make_policy()
    window = make_window(policy)
    objective = window_objective(window, zeros(window), GAMMA)
    if fault == "not finite":
        objective = objective + math.nan * (objective - objective.detach())
    else:
        objective = objective.detach()
    metrics = run("score_function", make(policy, window, objective=objective))
    assert float(metrics["gradient/pathwise/missing"]) == 1
    assert "gradient/score_function/variance" in metrics
    assert "gradient/pathwise/variance" not in metrics
    assert "gradient/bias" not in metrics
    unmeasured = run("score_function", make(policy, make_window(policy)), interval=0)
    assert "gradient/pathwise/missing" not in unmeasured


def test_only_estimators_whose_parts_can_be_computed_are_available() -> None:
    policy = make_policy()
    window = make_window(policy)
    everything = tuple(CATALOGUE)
    assert available(everything, make(policy, window)) == everything
    plain = make(policy, window.detach(), q_value=None)
    assert available(everything, plain) == ("score_function",)
    nothing = make(policy, window.detach(), q_value=None, matched_weight=None)
    assert available(everything, nothing) == ()


@pytest.mark.parametrize("num_envs", [2, 3])
def test_with_fewer_than_three_trajectories_nothing_is_measured(num_envs: int) -> None:
    policy = make_policy()
    metrics = run("pathwise", make(policy, make_window(policy, num_envs=num_envs)))
    assert ("gradient/pathwise/variance" in metrics) == (num_envs >= 3)
    assert all(parameter.grad is not None for parameter in policy.parameters())


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("interval", [0, 1])
def test_an_estimator_that_is_not_available_says_so_and_sets_no_gradient(
    name: str, interval: int
) -> None:
    policy = make_policy()
    window = make_window(policy, graph=False)
    signals = make(policy, window, objective=None, matched_weight=None, q_value=None)
    with pytest.raises(RequestError, match="needs"):
        run(name, signals, interval=interval)
    assert "distribution" not in vars(signals)  # it is found out before a pass
    assert all(parameter.grad is None for parameter in policy.parameters())


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("interval", [0, 1])
def test_numbers_that_are_not_finite_set_no_gradient(name: str, interval: int) -> None:
    """Each estimator finds the NaN of the fourth environment in the numbers that it needs."""
    policy = make_policy()
    window = make_window(policy)
    nan = zeros(window)
    nan[2, 3] = math.nan
    signals = make(
        policy,
        window,
        objective=(window.reward + nan * window.action[..., 0]).sum(0),
        weight=nan,
        q_value=lambda features, action: action[..., 0] * (1 + nan),
    )
    with pytest.raises(NonFiniteError) as caught:
        run(name, signals, interval=interval)
    assert (caught.value.step, caught.value.env_index) == (2, 3)
    assert all(parameter.grad is None for parameter in policy.parameters())


# A measurement without a step ---------------------------------------------------------------------


def test_a_measurement_alone_sets_no_gradient_and_equals_that_of_a_step() -> None:
    policy = make_policy()
    window = make_window(policy, graph=False)
    found = measure(
        "score_function",
        make(policy, window),
        monitor=GradientMonitor(1),
        entropy=BONUS,
        divisor=NUM_STEPS,
    )
    assert all(parameter.grad is None for parameter in policy.parameters())
    expected = run("score_function", make(policy, window))
    groups = ("gradient/score_function/", "gradient_parameters/score_function/")
    own = [tag for tag in expected if tag.startswith(groups)]
    others = {"gradient/trajectories", "train/policy_gain"}
    tags = {*own, *others} - {"gradient/score_function/followed"}
    assert set(found) == tags
    for tag in tags:
        torch.testing.assert_close(found[tag], expected[tag])


def test_a_measurement_that_is_not_due_computes_nothing() -> None:
    policy = make_policy()
    signals = make(policy, make_window(policy, graph=False))
    assert measure("score_function", signals, monitor=GradientMonitor(0), entropy=BONUS) == {}
    assert "distribution" not in vars(signals) and "weight" not in vars(signals)
