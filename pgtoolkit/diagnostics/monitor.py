"""Metrics of the gradient that the optimiser uses, measured every few updates."""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.diagnostics.bias import BIAS_Z
from pgtoolkit.diagnostics.outer_products import scaled
from pgtoolkit.diagnostics.paired import PairStatistics
from pgtoolkit.diagnostics.per_trajectory import (
    GradientRecorder,
    Gradients,
    SampleGradients,
    Surrogate,
)
from pgtoolkit.diagnostics.significance import detectable_signal
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES, GradientStatistics
from pgtoolkit.errors import RequestError
from pgtoolkit.finite import require_finite
from pgtoolkit.policies.policy import Policy
from pgtoolkit.state import anything, entries, integer, mapping, number, require, series

LOG = logging.getLogger("pgtoolkit")

PARAMETERS = "gradient_parameters"
"""Group of the tags of single parameters, in the place of ``gradient``: there are many of them."""

MEASUREMENTS = 5
"""Measurements over which SNR and noise scale are summed up, and of which a diagnosis speaks. One
measurement of a heavy tail says little: on the pendulum the pathwise variance is 700 times the
score function's at one measurement of 25, and a hundredth of it at most others. Variance and signal
also fall by orders of magnitude in training, and older ones would outweigh them."""


class Pair(NamedTuple):
    """Gradients of every trajectory by two estimators, of one objective on the same trajectories.

    Attributes:
        reference: by the estimator that is taken to be unbiased.
        other: by the estimator whose bias is measured.
        group: the group of the tags, such as ``gradient/critic``.
    """

    reference: SampleGradients
    other: SampleGradients
    group: str = "gradient"


def one() -> float:
    """1: rewards as the environment gives them."""
    return 1.0


@final
class GradientMonitor:
    """Computes the gradient of a surrogate; every ``interval`` updates, that of each trajectory.

    In an update that is measured, the gradient of the update is the mean of the measured gradients,
    so the statistics describe the very gradient that trains. The samples are the entries of the
    surrogate: trajectories of a window, or transitions of a batch. With fewer than three samples
    nothing is measured. If no gradient belongs to one sample (BatchNorm, say), a warning says so
    once, and the run goes on with the ordinary gradient, unmeasured.

    Args:
        interval: updates between measurements; 0 never measures.
        group: the group of the tags of each estimator's statistics, ``{group}/{estimator}/...``.
        unit: gives what 1 of the update's rewards is in the environment's; metrics are in the unit
            of the environment's rewards.
    """

    def __init__(
        self, interval: int, group: str = "gradient", unit: Callable[[], float] = one
    ) -> None:
        self.interval, self.group, self.unit = interval, group, unit
        self.num_updates = 0
        self.recent: dict[str, dict[str, list[float]]] = {}
        self.update_seconds = 0.0
        self.diagnostic_seconds = 0.0
        self.unmeasured_seconds, self.num_unmeasured = 0.0, 0
        self._diagnosing = False
        self._recorder: GradientRecorder | None = None
        self._measurable = True
        self._warned_of_few = False

    @property
    def due(self) -> bool:
        """Whether this update is to be measured."""
        return self._measurable and self.interval > 0 and self.num_updates % self.interval == 0

    def measures(self, num_samples: int) -> bool:
        """Whether a surrogate with that many entries is measured in this update.

        If they are too few, a warning says so once.
        """
        if self.due and num_samples < MIN_TRAJECTORIES and not self._warned_of_few:
            self._warned_of_few = True
            LOG.warning(
                "the gradient's variance is not measured: an update has %s (--num-envs), and at "
                "least %d are needed",
                "1 trajectory" if num_samples == 1 else f"{num_samples} trajectories",
                MIN_TRAJECTORIES,
            )
        return self.due and num_samples >= MIN_TRAJECTORIES

    def backward(self, policy: Policy, surrogate: Surrogate) -> Gradients:
        """Sets every parameter's ``grad`` to the derivative of ``-surrogate().mean()``.

        Returns:
            The gradient of every trajectory if this update is measured, else an empty dictionary.

        Raises:
            NonFiniteError: the surrogate is not finite; names the environment.
        """
        return self.backward_beside(policy, surrogate, dict)[0]

    def backward_beside(
        self,
        policy: Policy,
        surrogate: Surrogate,
        beside: Callable[[], Mapping[str, Tensor]],
    ) -> tuple[Gradients, dict[str, SampleGradients]]:
        """:meth:`backward`, with other surrogates measured on the same forward pass.

        Args:
            policy: its parameters' gradients are set.
            surrogate: computes the surrogate ``[N]`` that the update increases.
            beside: computes other surrogates ``[N]`` by name. It is called after ``surrogate``, and
                only in an update that is measured. The two may share what the policy returned.

        Returns:
            The gradients of ``surrogate`` and of the others for every trajectory; two empty
            dictionaries if this update is not measured.
        """
        began = time.perf_counter()
        recorder = self._recorder_of(policy)
        with recorder.recording() if self.due else contextlib.nullcontext():
            values = surrogate()
            measured = self.measures(len(values))
            require_finite("loss", values.detach())
            with self.diagnosing():
                others = dict(beside()) if measured else {}
        gradients: Gradients = {}
        if measured:
            with self._or_unmeasured():
                gradients = recorder.per_trajectory(values, retain_graph=bool(others))
        if not gradients:
            policy.zero_grad()
            (-values.mean()).backward()  # type: ignore[no-untyped-call]
            self._time_backward(time.perf_counter() - began, measured=False)
            return {}, {}
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                parameter.grad = -gradients[name].mean(0)
        self._time_backward(time.perf_counter() - began, measured=True)
        with self.diagnosing():
            found = _recorded_gradients(recorder, others)
            recorder.forget()
            return gradients, found

    def _recorder_of(self, policy: Policy) -> GradientRecorder:
        """The recorder of this policy, which keeps what it has checked."""
        if self._recorder is None or self._recorder.module is not policy:
            self._recorder = GradientRecorder(policy)
        return self._recorder

    @contextlib.contextmanager
    def _or_unmeasured(self) -> Iterator[None]:
        """A context in which a policy that cannot be measured ends all measuring, with a warning.

        Measuring must not stop a run that could go on without it.
        """
        try:
            yield
        except RequestError as error:
            self._measurable = False
            LOG.warning("the policy's gradients are not measured in this run: %s", error)

    def _time_backward(self, seconds: float, *, measured: bool) -> None:
        """Counts what a measured backward pass takes beyond the mean of the others as overhead."""
        if not measured:
            self.unmeasured_seconds += seconds
            self.num_unmeasured += 1
        elif self.num_unmeasured > 0:
            unmeasured = self.unmeasured_seconds / self.num_unmeasured
            self.diagnostic_seconds += max(seconds - unmeasured, 0.0)

    def measure(self, policy: Policy, surrogate: Surrogate) -> SampleGradients:
        """The gradient of every trajectory, for comparison only; its time counts as overhead.

        The parameters' ``grad`` is not changed. Empty if no gradient belongs to one sample.

        Raises:
            NonFiniteError: the surrogate is not finite; names the environment.
        """
        return self.measure_all(policy, lambda: {"": surrogate()}).get("", {})

    def measure_all(
        self, policy: Policy, surrogates: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, SampleGradients]:
        """:meth:`measure` for several surrogates ``[N]`` by name, from one forward pass."""
        found: dict[str, SampleGradients] = {}
        with self.diagnosing():
            recorder = self._recorder_of(policy)
            with recorder.recording():
                values = surrogates()
            with self._or_unmeasured():
                found = _recorded_gradients(recorder, values)
            recorder.forget()
        return found

    def report(
        self, gradients: Mapping[str, SampleGradients], pairs: Sequence[Pair] = ()
    ) -> dict[str, Tensor]:
        """Metrics of each estimator's gradients, and of matched pairs of estimators.

        Args:
            gradients: estimator's name to its per-trajectory gradients.
            pairs: the pairs to compare.

        Returns:
            TensorBoard tag to scalar.
        """
        with self.diagnosing():
            metrics: dict[str, Tensor] = {}
            # By identity: of a pair, one may be among `gradients`, and another in two pairs.
            known: dict[int, tuple[SampleGradients, GradientStatistics]] = {}
            unit = self.unit()
            for name, values in gradients.items():
                known[id(values)] = scaled_statistics(values, unit)
                metrics |= self._describe(name, known[id(values)][1])
            for pair in pairs:
                for each in pair[:2]:
                    if id(each) not in known:
                        known[id(each)] = scaled_statistics(each, unit)
                (first, of_first), (second, of_second) = (known[id(each)] for each in pair[:2])
                metrics |= compare(first, second, (of_first, of_second), pair.group)
            return metrics

    def _describe(self, name: str, statistics: GradientStatistics) -> dict[str, Tensor]:
        """The metrics of one estimator; notes its variance and signal."""
        prefix = f"{self.group}/{name}"
        metrics = {
            f"{prefix}/variance": statistics.variance,
            f"{prefix}/signal": statistics.signal,
            f"{prefix}/norm": statistics.norm,
        }
        metrics |= _given(
            {
                f"{prefix}/variance_low": statistics.variance_low,
                f"{prefix}/variance_high": statistics.variance_high,
            }
        )
        if float(statistics.variance) > 0:
            metrics |= {
                f"{prefix}/signal_z": statistics.significance,
                f"{prefix}/effective_dimension": statistics.effective_dimension,
                f"{prefix}/largest_share": statistics.largest_share,
            }
        variance, signal = self._sums(name, float(statistics.variance), float(statistics.signal))
        if variance > 0:
            metrics[f"{prefix}/snr"] = torch.tensor(signal / variance)
        if signal > 0:
            metrics[f"{prefix}/noise_scale"] = torch.tensor(variance / signal)
        for parameter, value in statistics.parameter_variance.items():
            metrics[f"{PARAMETERS}{prefix.removeprefix('gradient')}/{parameter}"] = value
        metrics[f"{self.group}/trajectories"] = torch.tensor(float(statistics.num_trajectories))
        return metrics

    def _sums(self, name: str, variance: float, signal: float) -> tuple[float, float]:
        """Sums of variance and signal over the last ``MEASUREMENTS``, these values included.

        Their ratio is logged. The mean of the single ratios would be biased.
        """
        recent = self.recent.setdefault(name, {"variance": [], "signal": []})
        for key, value in (("variance", variance), ("signal", signal)):
            recent[key] = [*recent[key], value][-MEASUREMENTS:]
        return sum(recent["variance"]), sum(recent["signal"])

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """A context for one whole update: counts the update and its time."""
        start = time.perf_counter()
        yield
        self.update_seconds += time.perf_counter() - start
        self.num_updates += 1

    @contextlib.contextmanager
    def diagnosing(self) -> Iterator[None]:
        """A context for work that only serves measurement: counts its time, once if nested."""
        outermost, self._diagnosing, start = not self._diagnosing, True, time.perf_counter()
        yield
        if outermost:
            self._diagnosing = False
            self.diagnostic_seconds += time.perf_counter() - start

    @property
    def overhead(self) -> Tensor:
        """Time spent on measurements so far over the time of all completed updates, at most 1."""
        total = self.update_seconds
        return torch.tensor(min(self.diagnostic_seconds / total, 1.0) if total > 0 else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "recent": copy.deepcopy(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        require(state, entries({"num_updates": integer(), "recent": mapping(_measurements)}))
        self.num_updates = state["num_updates"]
        self.recent = copy.deepcopy(state["recent"])


def _measurements(state: Any, path: str) -> None:
    """The schema of the recent measurements of one estimator: a signal of each variance."""
    # The squares of float32 numbers are sums in float64, and so always finite.
    values = {
        "variance": series(number(0.0), 1, MEASUREMENTS),
        "signal": series(number(), 1, MEASUREMENTS),
    }
    require(state, entries(values), path)
    count = len(state["variance"])
    require(state["signal"], series(anything, count, count), f"{path}/signal")


def _recorded_gradients(
    recorder: GradientRecorder, surrogates: Mapping[str, Tensor]
) -> dict[str, SampleGradients]:
    """Per-trajectory gradients of surrogates ``[N]`` by name, from one recorded forward pass."""
    found: dict[str, SampleGradients] = {}
    for place, (name, values) in enumerate(surrogates.items(), 1):
        require_finite("loss", values.detach())
        last = place == len(surrogates)
        found[name] = recorder.factors(values, retain_graph=not last)
    return found


def scaled_statistics(
    gradients: SampleGradients, unit: float = 1.0
) -> tuple[SampleGradients, GradientStatistics]:
    """The gradients of the trajectories times ``unit``, and their statistics."""
    if unit != 1.0:
        gradients = {name: scaled(values, unit) for name, values in gradients.items()}
    return gradients, GradientStatistics.of(gradients)


def compare(
    reference: SampleGradients,
    other: SampleGradients,
    statistics: tuple[GradientStatistics, GradientStatistics],
    group: str = "gradient",
) -> dict[str, Tensor]:
    """Metrics of two matched estimators: variance ratio, cosine, squared bias and its z.

    Args:
        reference: gradients of every trajectory by the estimator that is taken to be unbiased.
        other: gradients by the other one, for the same objective on the same trajectories.
        statistics: of the two.
        group: the group of the tags.

    Returns:
        TensorBoard tag to scalar. Ends of intervals are absent where there is no interval, the
        ratio if an estimator has no variance, the relative bias if the reference shows no signal to
        divide it by, and the detectable bias if the other one shows none.
    """
    pair = PairStatistics.of(reference, other, statistics)
    logs = {"": pair.log_ratio, "_low": pair.log_ratio_low, "_high": pair.log_ratio_high}
    metrics = {
        f"{group}/cosine": pair.cosine,
        f"{group}/bias": pair.difference.signal,
        f"{group}/bias_z": pair.difference.significance,
    }
    signal, seen = statistics[0].signal, statistics[0].signal_low > 0
    own_signal, own_seen = statistics[1].signal, statistics[1].signal_low > 0
    difference, n = pair.difference, pair.difference.num_trajectories
    detectable = detectable_signal(difference.variance, difference.squared_covariance, n, BIAS_Z)
    intervals = {
        f"{group}/cosine_low": pair.cosine_low,
        f"{group}/cosine_high": pair.cosine_high,
        f"{group}/bias_low": pair.difference.signal_low,
        f"{group}/bias_high": pair.difference.signal_high,
        f"{group}/relative_bias": torch.where(seen, difference.signal / signal, math.nan),
        f"{group}/log10_detectable_bias": torch.where(
            own_seen & (detectable > 0), (detectable / own_signal).log10(), math.nan
        ),
    }
    for end, log in logs.items():
        intervals[f"{group}/variance_ratio{end}"] = log.exp()
        intervals[f"{group}/log10_variance_ratio{end}"] = log / math.log(10)
    return metrics | _given(intervals)


def _given(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics that are not NaN, which stands for what does not exist."""
    missing = torch.stack([*metrics.values()]).isnan().tolist()
    return {tag: x for (tag, x), no in zip(metrics.items(), missing, strict=True) if not no}


def variance_by_step(action_gradient: Tensor) -> Tensor:
    """Trace of the covariance of an action gradient ``[T, N, A]`` over trajectories, ``[T]``."""
    return action_gradient.double().var(1, unbiased=True).sum(-1)


def bias_by_step(reference: Tensor, other: Tensor) -> Tensor:
    """Unbiased squared norm ``[T]`` of the mean difference of two action gradients ``[T, N, A]``.

    ``|d_t|^2 - tr(S_t) / N``, with mean ``d_t`` and covariance ``S_t`` over trajectories of
    ``reference - other``. It may be negative.
    """
    difference = reference.double() - other.double()
    variance = difference.var(1, unbiased=True).sum(-1)
    return difference.mean(1).square().sum(-1) - variance / difference.shape[1]


def cosine_by_step(reference: Tensor, other: Tensor) -> Tensor:
    """``sum_i a_i . b_i / sqrt(sum_i |a_i|^2 sum_i |b_i|^2)`` ``[T]`` of gradients ``[T, N, A]``.

    It is the cosine between the two as fields over the visited states and actions. The mean over
    trajectories says less: in a symmetric task it is 0 for both. Noise of either makes it smaller.
    NaN where one of them is 0.
    """
    a, b = reference.double(), other.double()
    product = (a * b).sum((1, 2))
    return product / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt()
