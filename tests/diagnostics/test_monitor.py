"""The gradient monitor: it measures what trains, on schedule, and sums up the right things."""

import copy
import math
import time

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from pgtoolkit.diagnostics.monitor import (
    MEASUREMENTS,
    GradientMonitor,
    Pair,
    bias_by_step,
    compare,
    cosine_by_step,
    variance_by_step,
)
from pgtoolkit.diagnostics.outer_products import dense
from pgtoolkit.diagnostics.paired import PairStatistics
from pgtoolkit.diagnostics.per_trajectory import per_trajectory_gradients
from pgtoolkit.diagnostics.statistics import GradientStatistics, gradient_difference
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.policies.gaussian import GaussianHead, GaussianPolicy
from pgtoolkit.policies.policy import Policy

SPACE = Box(-np.inf, np.inf, (2,), np.float32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def policy_of() -> Policy:
    return GaussianPolicy(SPACE, SPACE, (6,), layer_norm=True)


def surrogate_of(policy: Policy, num_envs: int = 5) -> Tensor:
    """Some objective of every parameter ``[N]``."""
    action = policy(normal(7, num_envs, 2)).pre_action(normal(7, num_envs, 2, seed=1))
    return torch.cos(action).sum((0, 2))


def test_a_measurement_is_due_every_few_updates_from_the_first_on() -> None:
    """At interval 3, updates 0, 3 and 6 are measured."""
    monitor, due = GradientMonitor(3), []
    for _ in range(8):
        due.append(monitor.due)
        with monitor.updating():
            pass
    assert due == [True, False, False, True, False, False, True, False]


@pytest.mark.parametrize(("interval", "num_envs"), [(0, 64), (1, 2), (1, 1)])
def test_nothing_is_measured_where_it_is_not_wanted_or_not_possible(
    interval: int, num_envs: int
) -> None:
    """Interval 0, or too few trajectories: the gradient is taken as ever."""
    monitor, policy = GradientMonitor(interval), policy_of()
    assert not monitor.measures(num_envs)
    assert monitor.backward(policy, lambda: surrogate_of(policy, num_envs)) == {}
    assert all(parameter.grad is not None for parameter in policy.parameters())


@pytest.mark.parametrize(("num", "words"), [(1, "has 1 trajectory"), (2, "has 2 trajectories")])
def test_too_few_trajectories_are_said_once(
    num: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = GradientMonitor(1)
    assert not monitor.measures(num) and not monitor.measures(num)
    assert [words in record.getMessage() for record in caplog.records] == [True]
    assert not GradientMonitor(0).measures(num)
    assert len(caplog.records) == 1


def test_the_gradient_is_the_same_whether_it_is_measured_or_not() -> None:
    """Descent on minus the mean of the surrogate; what was there before is replaced."""
    plain, measured = policy_of(), policy_of()
    for policy in (plain, measured):
        for parameter in policy.parameters():
            parameter.grad = torch.full_like(parameter, 1e6)
    assert GradientMonitor(0).backward(plain, lambda: surrogate_of(plain)) == {}
    gradients = GradientMonitor(1).backward(measured, lambda: surrogate_of(measured))
    assert set(gradients) == {name for name, _ in measured.named_parameters()}
    for one, (name, two) in zip(plain.parameters(), measured.named_parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)
        assert torch.equal(two.grad, -gradients[name].mean(0))


def test_a_step_along_the_gradient_raises_the_surrogate() -> None:
    """The sign: an optimiser that descends on ``grad`` ascends on the objective."""
    policy, monitor = policy_of(), GradientMonitor(1)
    before = float(surrogate_of(policy).mean().detach())
    monitor.backward(policy, lambda: surrogate_of(policy))
    torch.optim.SGD(policy.parameters(), 1e-3).step()
    assert float(surrogate_of(policy).mean().detach()) > before


def test_a_frozen_parameter_is_left_alone() -> None:
    """A fixed log-sigma, say: it gets no gradient, measured or not."""
    for interval in (0, 1):
        policy = policy_of()
        assert isinstance(policy.head, GaussianHead) and policy.head.std is not None
        policy.head.std.log_std.requires_grad_(False)
        GradientMonitor(interval).backward(policy, lambda p=policy: surrogate_of(p))  # type: ignore[misc]
        assert policy.head.std.log_std.grad is None
        assert policy.head.output.weight.grad is not None


@pytest.mark.parametrize("interval", [0, 1])
def test_a_surrogate_that_is_not_finite_is_named_and_changes_nothing(interval: int) -> None:
    """The error names trajectory 3, and no gradient is set."""
    policy = policy_of()

    def surrogate() -> Tensor:
        return surrogate_of(policy) * torch.tensor([1.0, 1, 1, float("nan"), 1])

    with pytest.raises(NonFiniteError) as caught:
        GradientMonitor(interval).backward(policy, surrogate)
    assert caught.value.env_index == 3
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_measuring_for_comparison_leaves_the_gradient_alone() -> None:
    """The other estimator must not leak into the update."""
    policy, monitor = policy_of(), GradientMonitor(1)
    monitor.backward(policy, lambda: surrogate_of(policy))
    before = [parameter.grad for parameter in policy.parameters()]
    other = monitor.measure(policy, lambda: 100 * surrogate_of(policy))
    for old, parameter in zip(before, policy.parameters(), strict=True):
        assert parameter.grad is old
    assert float(dense(other["head.std.log_std"]).abs().max()) > 0


def gradients_of(variance: float, signal: float, n: int = 4) -> dict[str, Tensor]:
    """Exactly that V and U: one direction carries the mean, another +-deviations.

    Deviations +-d in equal numbers have V = d^2 n / (n - 1), and U = |mean|^2 - V / n.
    """
    d = math.sqrt(variance * (n - 1) / n)
    mean = math.sqrt(signal + variance / n)
    deviation = d * torch.tensor([1.0, -1.0]).repeat(n // 2)
    return {"p": torch.stack([torch.full((n,), mean), deviation], 1).double()}


def test_a_report_has_every_statistic() -> None:
    """V = 6, U = 2; one measurement is all that the ratios are of."""
    found = GradientMonitor(1).report({"pathwise": gradients_of(6, 2)})
    expected = GradientStatistics.of(gradients_of(6, 2))
    assert float(found.pop("gradient/trajectories")) == 4
    assert float(found.pop("gradient_parameters/pathwise/p")) == pytest.approx(6)
    values = {tag.removeprefix("gradient/pathwise/"): float(x) for tag, x in found.items()}
    assert values["variance"] == pytest.approx(6)
    assert values["signal"] == pytest.approx(2)
    assert values["norm"] == pytest.approx(math.sqrt(3.5))
    assert values["snr"] == pytest.approx(2 / 6)
    assert values["noise_scale"] == pytest.approx(3)
    assert values["signal_z"] == pytest.approx(float(expected.significance))
    assert values["effective_dimension"] == pytest.approx(float(expected.effective_dimension))
    assert values["largest_share"] == pytest.approx(1 / 4)
    assert len(values) == 8  # four trajectories have no interval


def test_intervals_are_reported_where_there_are_any() -> None:
    """With 100 trajectories in ten dimensions; four of them have none, and no tag is NaN."""
    many = {"p": normal(100, 10, seed=3)}
    found, expected = GradientMonitor(1).report({"pathwise": many}), GradientStatistics.of(many)
    for end in ("variance_low", "variance_high"):
        value = float(found[f"gradient/pathwise/{end}"])
        assert value == pytest.approx(float(getattr(expected, end)))
    few = GradientMonitor(1).report({"pathwise": gradients_of(6, 2)})
    assert "gradient/pathwise/variance_low" not in few
    assert all(bool(value.isfinite()) for value in few.values())


def test_snr_is_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    """V 10 then 20, U 5 then -2: SNR 3 / 30 (the mean of the ratios: 0.2)."""
    monitor = GradientMonitor(1)
    monitor.report({"pathwise": gradients_of(10, 5)})
    second = monitor.report({"pathwise": gradients_of(20, -2)})
    assert float(second["gradient/pathwise/signal"]) == pytest.approx(-2)
    assert float(second["gradient/pathwise/snr"]) == pytest.approx(3 / 30)
    assert float(second["gradient/pathwise/noise_scale"]) == pytest.approx(10)


def test_snr_is_that_of_the_last_five_measurements() -> None:
    """A first gradient a million times as large counts in five measurements, and then no more."""
    monitor = GradientMonitor(1)
    monitor.report({"pathwise": gradients_of(1e6, 5e5)})
    found = [
        float(monitor.report({"pathwise": gradients_of(1, 0.01)})["gradient/pathwise/snr"])
        for _ in range(MEASUREMENTS)
    ]
    assert found[:-1] == pytest.approx([0.5] * (MEASUREMENTS - 1), rel=1e-4)
    assert found[-1] == pytest.approx(0.01)


def test_a_monitor_goes_on_with_the_measurements_of_another() -> None:
    one, other = GradientMonitor(1), GradientMonitor(1)
    for k in range(1, 8):
        one.report({"pathwise": gradients_of(k, 1)})
    other.load_state_dict(one.state_dict())
    both = [monitor.report({"pathwise": gradients_of(9, 2)}) for monitor in (one, other)]
    assert both[0]["gradient/pathwise/snr"] == both[1]["gradient/pathwise/snr"]
    assert float(both[1]["gradient/pathwise/snr"]) == pytest.approx(6 / (4 + 5 + 6 + 7 + 9))


def test_the_estimators_have_sums_of_their_own() -> None:
    """The SNR of one estimator does not depend on the gradients of the other."""
    monitor = GradientMonitor(1)
    found = monitor.report({"pathwise": gradients_of(10, 5), "mixed": gradients_of(1, 3)})
    assert float(found["gradient/pathwise/snr"]) == pytest.approx(0.5)
    assert float(found["gradient/mixed/snr"]) == pytest.approx(3)


def test_there_is_no_noise_scale_while_no_signal_is_seen() -> None:
    """A negative number of trajectories means nothing; SNR may well be negative."""
    found = GradientMonitor(1).report({"pathwise": gradients_of(8, -1)})
    assert "gradient/pathwise/noise_scale" not in found
    assert float(found["gradient/pathwise/snr"]) == pytest.approx(-1 / 8)


def test_gradients_of_zero_are_reported_in_finite_numbers() -> None:
    """All gradients are 0, as of a saturated policy: ratios of 0 and 0 are left out, not NaN."""
    zeros = {"p": torch.zeros(4, 2)}
    found = GradientMonitor(1).report({"pathwise": zeros}, [Pair(zeros, zeros)])
    assert all(bool(value.isfinite()) for value in found.values())
    assert "gradient/pathwise/snr" not in found
    assert "gradient/variance_ratio" not in found


def test_a_matched_pair_is_compared() -> None:
    """Ratio of variances, cosine of the means, squared bias, each with its interval."""
    score = {"p": normal(100, 3, seed=2).double() + 1}
    pathwise = {"p": 0.5 * normal(100, 3, seed=3).double() + 1}
    both = GradientStatistics.of(score), GradientStatistics.of(pathwise)
    found = {tag: float(value) for tag, value in compare(score, pathwise, both).items()}
    pair = PairStatistics.of(score, pathwise, both)
    difference = GradientStatistics.of(gradient_difference(score, pathwise))
    ratio = float(score["p"].var(0).sum() / pathwise["p"].var(0).sum())
    for end, log in (("_low", pair.log_ratio_low), ("_high", pair.log_ratio_high)):
        assert found[f"gradient/variance_ratio{end}"] == pytest.approx(math.exp(float(log)))
    assert found["gradient/variance_ratio"] == pytest.approx(ratio)
    for end in ("", "_low", "_high"):
        value = math.log10(found[f"gradient/variance_ratio{end}"])
        assert found[f"gradient/log10_variance_ratio{end}"] == pytest.approx(value)
        assert found[f"gradient/cosine{end}"] == float(getattr(pair, f"cosine{end}"))
        assert found[f"gradient/bias{end}"] == float(getattr(difference, f"signal{end}"))
    assert found["gradient/bias_z"] == float(difference.significance)


def test_a_pair_of_few_trajectories_has_no_interval_of_the_cosine() -> None:
    """No signal is seen, so neither direction is known: the tags are absent, not NaN."""
    score, pathwise = {"p": normal(6, 3, seed=2)}, {"p": normal(6, 3, seed=3)}
    both = GradientStatistics.of(score), GradientStatistics.of(pathwise)
    found = compare(score, pathwise, both)
    assert "gradient/cosine" in found and "gradient/cosine_low" not in found
    assert all(bool(value.isfinite()) for value in found.values())


def test_pairs_have_groups_of_their_own_and_share_their_statistics() -> None:
    """Three estimators in two pairs; each pair as if it were alone."""
    score, pathwise, critic = ({"p": normal(50, 3, seed=seed) + 1} for seed in (2, 3, 4))
    pairs = [Pair(score, pathwise), Pair(pathwise, critic, "gradient/critic")]
    monitor = GradientMonitor(1, "gradient/probe")
    found = monitor.report({"pathwise": pathwise, "critic": critic}, pairs)
    assert float(found["gradient/probe/trajectories"]) == 50
    assert "gradient/probe/critic/variance" in found
    for first, second, group in pairs:
        both = GradientStatistics.of(first), GradientStatistics.of(second)
        for tag, value in compare(first, second, both, group).items():
            assert torch.equal(found[tag], value), tag


def test_the_relative_bias_is_absent_without_a_signal_to_divide_it_by() -> None:
    other = {"p": normal(50, 3, seed=3).double() + 1}
    for shift in (0.0, 2.0):
        reference = {"p": normal(50, 3, seed=2).double() + shift}
        both = GradientStatistics.of(reference), GradientStatistics.of(other)
        found = compare(reference, other, both)
        assert ("gradient/relative_bias" in found) == (shift > 0)
    share = both[0].signal
    torch.testing.assert_close(found["gradient/relative_bias"], found["gradient/bias"] / share)


def test_the_bias_by_step_is_unbiased_and_the_cosine_that_of_the_fields() -> None:
    """A mean difference of (3, 4) at step 0 and of 0 at step 1; a field, and it turned around."""
    noise = normal(2, 20_000, 2, seed=1).double()
    other = normal(2, 20_000, 2, seed=2).double()
    reference = other + noise + torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]], dtype=torch.float64)
    bias = bias_by_step(reference, other)
    # Standard errors: 2 |d| / sqrt(N) = 0.07, and 2 / N for no difference.
    assert abs(float(bias[0]) - 25) < 4.5 * 10 / math.sqrt(20_000)
    assert abs(float(bias[1])) < 5 * 2 / 20_000
    both = torch.stack([other[0], -other[1]]), 2 * other
    torch.testing.assert_close(cosine_by_step(*both), torch.tensor([1.0, -1.0]).double())


def test_overhead_is_the_share_of_diagnosis_in_all_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a fake clock, diagnosis takes 1 second of 4, then 1 second of 6 in total."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monitor = GradientMonitor(1)
    assert float(monitor.overhead) == 0
    for length, share in ((4.0, 1 / 4), (2.0, 1 / 6)):
        with monitor.updating():
            if length == 4:
                with monitor.diagnosing():
                    now += 1
            now += length - (1 if length == 4 else 0)
        assert float(monitor.overhead) == pytest.approx(share)


def test_a_monitor_goes_on_from_its_state() -> None:
    """A resumed monitor has the same schedule and the same running means."""
    monitor, resumed = GradientMonitor(2), GradientMonitor(2)
    with monitor.updating():
        monitor.report({"pathwise": gradients_of(10, 5)})
    resumed.load_state_dict(copy.deepcopy(monitor.state_dict()))  # as through a checkpoint
    assert not resumed.due
    following = {"pathwise": gradients_of(20, -4)}
    expected = monitor.report(following)
    found = resumed.report(following)
    assert {tag: float(x) for tag, x in found.items()} == {
        tag: float(x) for tag, x in expected.items()
    }


def test_gradients_of_a_surrogate_are_one_row_a_trajectory() -> None:
    """Row ``i`` is the gradient of the surrogate's entry ``i``."""
    policy = policy_of()
    found = per_trajectory_gradients(policy, lambda: surrogate_of(policy))
    first = policy.head.output
    assert isinstance(first, nn.Linear)
    (expected,) = torch.autograd.grad(surrogate_of(policy)[2], first.weight)
    torch.testing.assert_close(found["head.output.weight"][2], expected, rtol=1e-4, atol=1e-6)


def test_variance_by_step_sums_over_the_actions_dimensions() -> None:
    """The variance over trajectories divides by N - 1: (1, 3) and (0, 0) give 2 + 0 at step 0."""
    gradient = torch.zeros(3, 2, 2)
    gradient[0, :, 0] = torch.tensor([1.0, 3.0])
    gradient[2, :, 0] = torch.tensor([1.0, -1.0])
    gradient[2, :, 1] = torch.tensor([5.0, 1.0])
    assert variance_by_step(gradient).tolist() == [2.0, 0.0, 10.0]


def test_a_saved_state_does_not_change_with_the_monitor() -> None:
    """A saved state does not share its dictionaries with the monitor, which continues."""
    policy = policy_of()
    monitor = GradientMonitor(1)
    monitor.report({"pathwise": monitor.backward(policy, lambda: surrogate_of(policy))})
    state = monitor.state_dict()
    before = copy.deepcopy(state["recent"])
    monitor.report({"pathwise": monitor.measure(policy, lambda: 2 * surrogate_of(policy))})
    assert state["recent"] == before != monitor.state_dict()["recent"]


# Policies that cannot be measured -----------------------------------------------------------------


class Centred(nn.Module):
    """Takes the batch's mean away."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)


def unmeasurable(kind: str) -> Policy:
    policy = policy_of()
    layers = {"mixing": Centred(), "in place": nn.ReLU(inplace=True)}
    policy.torso = nn.Sequential(nn.Linear(2, 6), layers[kind])
    return policy


@pytest.mark.parametrize("kind", ["mixing", "in place"])
def test_a_policy_that_cannot_be_measured_trains_on_after_one_warning(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its gradient is the ordinary one, bit for bit; nothing is measured from then on."""
    plain, policy = unmeasurable(kind), unmeasurable(kind)
    policy.load_state_dict(plain.state_dict())
    GradientMonitor(0).backward(plain, lambda: surrogate_of(plain))
    monitor = GradientMonitor(1)
    for _ in range(3):
        with monitor.updating():
            assert monitor.backward(policy, lambda: surrogate_of(policy)) == {}
        for one, two in zip(plain.parameters(), policy.parameters(), strict=True):
            assert one.grad is not None and two.grad is not None
            assert torch.equal(one.grad, two.grad)
    assert not monitor.due and not monitor.measures(5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not measured" in caplog.text
    comparing = GradientMonitor(1)
    assert comparing.measure(policy, lambda: surrogate_of(policy)) == {}
    assert not comparing.due


def test_a_measurement_keeps_no_graph() -> None:
    """The recorder outlives the update; the calls that it recorded must not."""
    monitor, policy = GradientMonitor(1), policy_of()
    monitor.backward(policy, lambda: surrogate_of(policy))
    assert monitor._recorder is not None and not monitor._recorder.calls
    monitor.measure(policy, lambda: surrogate_of(policy))
    assert not monitor._recorder.calls


def test_metrics_are_in_the_unit_of_the_environments_rewards() -> None:
    """Rewards divided by 10 have gradients a tenth as long; what has no unit stays."""
    given, tenth = gradients_of(6, 2), {"p": gradients_of(6, 2)["p"] / 10}
    other, tenth_other = gradients_of(3, 1), {"p": gradients_of(3, 1)["p"] / 10}
    expected = GradientMonitor(1).report({"a": given}, [Pair(given, other)])
    monitor = GradientMonitor(1, unit=lambda: 10.0)
    found = monitor.report({"a": tenth}, [Pair(tenth, tenth_other)])
    assert found.keys() == expected.keys()
    for tag, value in expected.items():
        torch.testing.assert_close(found[tag], value, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_bias_as_large_as_the_detectable_one_has_that_z() -> None:
    """A known difference is made as large as the number says, and is then just significant."""
    reference, other = {"p": normal(100, 10, seed=3)}, {"p": normal(100, 10, seed=4)}
    reference["p"] += 2
    other["p"] += 2
    found = GradientMonitor(1).report({}, [Pair(reference, other)])
    detectable = 10 ** float(found["gradient/log10_detectable_bias"])
    squared = detectable * float(GradientStatistics.of(other).signal)
    difference = reference["p"] - other["p"]
    mean, variance = difference.mean(0), difference.var(0, unbiased=True).sum()
    wanted = (squared + variance / 100).sqrt()
    shifted = {"p": reference["p"] + mean * (wanted / mean.norm() - 1)}
    again = GradientMonitor(1).report({}, [Pair(shifted, other)])
    assert float(again["gradient/bias"]) == pytest.approx(squared)
    assert float(again["gradient/bias_z"]) == pytest.approx(5, abs=1e-3)
