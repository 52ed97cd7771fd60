"""Metrics of the gradient that the optimiser uses, measured every few updates."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit import parallel
from pgtoolkit.diagnostics.paired import PairStatistics
from pgtoolkit.diagnostics.per_trajectory import (
    GradientRecorder,
    Gradients,
    Surrogate,
)
from pgtoolkit.diagnostics.statistics import MIN_TRAJECTORIES, GradientStatistics
from pgtoolkit.errors import RequestError
from pgtoolkit.finite import require_finite
from pgtoolkit.policies.policy import Policy
from pgtoolkit.state import entries, integer, mapping, number, require

LOG = logging.getLogger("pgtoolkit")

RUNNING_MEAN_DECAY = 0.9
"""Decay per measurement of the running means whose ratios are logged as SNR and noise scale."""


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
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.num_updates = 0
        self.smoothed: dict[str, dict[str, float]] = {}
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
    ) -> tuple[Gradients, dict[str, Gradients]]:
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

    def measure(self, policy: Policy, surrogate: Surrogate) -> Gradients:
        """The gradient of every trajectory, for comparison only; its time counts as overhead.

        The parameters' ``grad`` is not changed. Empty if no gradient belongs to one sample.

        Raises:
            NonFiniteError: the surrogate is not finite; names the environment.
        """
        gradients: Gradients = {}
        with self.diagnosing():
            recorder = self._recorder_of(policy)
            with recorder.recording():
                values = surrogate()
            require_finite("loss", values.detach())
            with self._or_unmeasured():
                gradients = recorder.per_trajectory(values)
            recorder.forget()
        return gradients

    def report(
        self,
        gradients: Mapping[str, Gradients],
        matched: tuple[Gradients, Gradients] | None = None,
    ) -> dict[str, Tensor]:
        """Metrics of each estimator's gradients, and of a matched pair of estimators.

        Args:
            gradients: estimator's name to its per-trajectory gradients.
            matched: gradients by the score function and by pathwise, which must estimate the
                gradient of one objective on the same trajectories.

        Returns:
            TensorBoard tag to scalar.
        """
        with self.diagnosing():
            metrics: dict[str, Tensor] = {}
            found: dict[str, GradientStatistics] = {}
            for name, values in gradients.items():
                found[name] = GradientStatistics.of(_gather(values))
                metrics |= self._describe(name, found[name])
            if matched is None:
                return metrics
            # If one of the pair is among `gradients`, its statistics have been computed already.
            names = [next((n for n, g in gradients.items() if g is one), None) for one in matched]
            score_function, pathwise = (_gather(one) for one in matched)
            first, second = (
                GradientStatistics.of(one) if name is None else found[name]
                for name, one in zip(names, (score_function, pathwise), strict=True)
            )
            return metrics | compare(score_function, pathwise, (first, second))

    def _describe(self, name: str, statistics: GradientStatistics) -> dict[str, Tensor]:
        """The metrics of one estimator; updates its running means."""
        prefix = f"gradient/{name}"
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
        variance, signal = self._smooth(name, float(statistics.variance), float(statistics.signal))
        if variance > 0:
            metrics[f"{prefix}/snr"] = torch.tensor(signal / variance)
        if signal > 0:
            metrics[f"{prefix}/noise_scale"] = torch.tensor(variance / signal)
        for parameter, value in statistics.parameter_variance.items():
            metrics[f"{prefix}/parameter/{parameter}"] = value
        metrics["gradient/trajectories"] = torch.tensor(float(statistics.num_trajectories))
        return metrics

    def _smooth(self, name: str, variance: float, signal: float) -> tuple[float, float]:
        """Running means of variance and signal, with one decay, after adding these values.

        Their ratio is logged. A running mean of the ratio itself would be biased.
        """
        old = self.smoothed.get(name, {"variance": variance, "signal": signal})
        new = {"variance": variance, "signal": signal}
        mean = {
            key: RUNNING_MEAN_DECAY * old[key] + (1 - RUNNING_MEAN_DECAY) * new[key] for key in new
        }
        self.smoothed[name] = mean
        return mean["variance"], mean["signal"]

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
        smoothed = {name: dict(values) for name, values in self.smoothed.items()}
        return {"num_updates": self.num_updates, "smoothed": smoothed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # The squares of float32 numbers are sums in float64, and so always finite.
        means = {"variance": number(0.0), "signal": number()}
        schemas = {"num_updates": integer(), "smoothed": mapping(entries(means))}
        require(state, entries(schemas))
        self.num_updates = state["num_updates"]
        self.smoothed = {name: dict(values) for name, values in state["smoothed"].items()}


def _recorded_gradients(
    recorder: GradientRecorder, surrogates: Mapping[str, Tensor]
) -> dict[str, Gradients]:
    """Per-trajectory gradients of surrogates ``[N]`` by name, from one recorded forward pass."""
    found = {}
    for place, (name, values) in enumerate(surrogates.items(), 1):
        require_finite("loss", values.detach())
        last = place == len(surrogates)
        found[name] = recorder.per_trajectory(values, retain_graph=not last)
    return found


def _gather(gradients: Gradients) -> Gradients:
    """The gradients of the trajectories of all processes."""
    return {name: parallel.gather(values) for name, values in gradients.items()}


def compare(
    score_function: Gradients,
    pathwise: Gradients,
    statistics: tuple[GradientStatistics, GradientStatistics],
) -> dict[str, Tensor]:
    """Metrics of two matched estimators: variance ratio, cosine, squared bias and its z.

    Args:
        score_function: gradients of every trajectory by the score function.
        pathwise: gradients by pathwise, for the same objective on the same trajectories.
        statistics: of the score function and of pathwise.

    Returns:
        TensorBoard tag to scalar. Ends of intervals are absent where there is no interval, and the
        ratio if an estimator has no variance.
    """
    pair = PairStatistics.of(score_function, pathwise, statistics)
    logs = {"": pair.log_ratio, "_low": pair.log_ratio_low, "_high": pair.log_ratio_high}
    metrics = {
        "gradient/cosine": pair.cosine,
        "gradient/bias": pair.difference.signal,
        "gradient/bias_z": pair.difference.significance,
    }
    intervals = {
        "gradient/cosine_low": pair.cosine_low,
        "gradient/cosine_high": pair.cosine_high,
        "gradient/bias_low": pair.difference.signal_low,
        "gradient/bias_high": pair.difference.signal_high,
    }
    for end, log in logs.items():
        intervals[f"gradient/variance_ratio{end}"] = log.exp()
        intervals[f"gradient/log10_variance_ratio{end}"] = log / math.log(10)
    return metrics | _given(intervals)


def _given(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics that are not NaN, which stands for what does not exist."""
    missing = torch.stack([*metrics.values()]).isnan().tolist()
    return {tag: x for (tag, x), no in zip(metrics.items(), missing, strict=True) if not no}


def variance_by_step(action_gradient: Tensor) -> Tensor:
    """Trace of the covariance of an action gradient ``[T, N, A]`` over trajectories, ``[T]``."""
    return action_gradient.double().var(1, unbiased=True).sum(-1)
