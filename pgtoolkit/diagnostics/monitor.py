"""Measures the gradient that the optimiser uses, on a schedule, and turns it into metrics."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit import parallel
from pgtoolkit.diagnostics.per_trajectory import GradientRecorder
from pgtoolkit.diagnostics.statistics import (
    MIN_TRAJECTORIES,
    GradientStatistics,
    cosine,
    gradient_difference,
    variance,
)
from pgtoolkit.finite import require_finite
from pgtoolkit.policies.policy import Policy

Surrogate = Callable[[], Tensor]
"""Computes a surrogate ``[N]`` by calling the policy."""
Gradients = dict[str, Tensor]
"""``{parameter name: [N, *shape]}``, a gradient for every trajectory."""

SMOOTHING = 0.9
"""Decay of the running means whose ratio is logged as SNR and noise scale."""


@final
class GradientMonitor:
    """Takes the gradient of a surrogate; every ``interval`` updates, trajectory by trajectory.

    When it measures, the mean of the measured gradients *is* the gradient of the update: there is
    no second computation that could differ from the one that trains. The samples are the entries of
    the surrogate: trajectories of a window, or transitions of a batch. With fewer than three of
    them nothing is measured.

    Args:
        interval: updates between measurements; 0 never measures.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.num_updates = 0
        self.smoothed: dict[str, dict[str, float]] = {}
        self.update_seconds = 0.0
        self.diagnostic_seconds = 0.0
        self.plain_seconds, self.num_plain = 0.0, 0
        self._inside = False

    @property
    def due(self) -> bool:
        """Whether this update is one that is measured."""
        return self.interval > 0 and self.num_updates % self.interval == 0

    def measures(self, num_samples: int) -> bool:
        """Whether a surrogate with so many entries is measured in this update."""
        return self.due and num_samples >= MIN_TRAJECTORIES

    def backward(self, policy: Policy, surrogate: Surrogate) -> Gradients:
        """Sets every parameter's ``grad`` to the derivative of ``-surrogate().mean()``.

        Returns:
            The gradient of every trajectory where a measurement is due, else an empty dictionary.

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
        """:meth:`backward`, with other surrogates measured on the same pass through the policy.

        Args:
            policy: its gradient is taken.
            surrogate: computes the surrogate ``[N]`` that the update increases.
            beside: computes other surrogates ``[N]`` by name. It is called only in an update that
                is measured, after ``surrogate``; the two may share what the policy returned.

        Returns:
            The gradients of ``surrogate`` and of the others by trajectory; empty dictionaries where
            no measurement is due.
        """
        began = time.perf_counter()
        recorder = GradientRecorder(policy)
        with recorder.recording() if self.due else contextlib.nullcontext():
            values = surrogate()
            measured = self.measures(len(values))
            require_finite("loss", values.detach())
            with self.diagnosing():
                others = dict(beside()) if measured else {}
        if not measured:
            policy.zero_grad()
            (-values.mean()).backward()  # type: ignore[no-untyped-call]
            self._time_backward(time.perf_counter() - began, measured=False)
            return {}, {}
        gradients = recorder.per_trajectory(values, retain_graph=bool(others))
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                parameter.grad = -gradients[name].mean(0)
        self._time_backward(time.perf_counter() - began, measured=True)
        with self.diagnosing():
            return gradients, self._per_trajectory(recorder, others)

    def _per_trajectory(
        self, recorder: GradientRecorder, surrogates: Mapping[str, Tensor]
    ) -> dict[str, Gradients]:
        found = {}
        for number, (name, values) in enumerate(surrogates.items(), 1):
            require_finite("loss", values.detach())
            last = number == len(surrogates)
            found[name] = recorder.per_trajectory(values, retain_graph=not last)
        return found

    def _time_backward(self, seconds: float, *, measured: bool) -> None:
        """Adds what a measured backward takes beyond an ordinary one to the overhead."""
        if not measured:
            self.plain_seconds, self.num_plain = self.plain_seconds + seconds, self.num_plain + 1
        elif self.num_plain > 0:
            self.diagnostic_seconds += max(seconds - self.plain_seconds / self.num_plain, 0.0)

    def measure(self, policy: Policy, surrogate: Surrogate) -> Gradients:
        """The gradient of every trajectory, for comparison only; its time counts as overhead."""
        with self.diagnosing():
            return per_trajectory_gradients(policy, surrogate)

    def report(
        self,
        gradients: Mapping[str, Gradients],
        matched: tuple[Gradients, Gradients] | None = None,
    ) -> dict[str, Tensor]:
        """Metrics of each estimator, and of a matched pair (score function, pathwise).

        The pair must estimate the gradient of one objective on the same trajectories.
        """
        with self.diagnosing():
            metrics: dict[str, Tensor] = {}
            variances: dict[str, Tensor] = {}
            for name, values in gradients.items():
                gathered = {key: parallel.gather(value) for key, value in values.items()}
                statistics = GradientStatistics.of(gathered)
                variances[name] = statistics.variance
                metrics |= self._describe(name, statistics)
            if matched is None:
                return metrics
            # The pair is often among the reported ones: then its variances are there already.
            names = [next((n for n, g in gradients.items() if g is one), None) for one in matched]
            pair = [
                variance(one) if name is None else variances[name]
                for name, one in zip(names, matched, strict=True)
            ]
            return metrics | compare(*matched, pair)

    def _describe(self, name: str, statistics: GradientStatistics) -> dict[str, Tensor]:
        prefix = f"gradient/{name}"
        metrics = {
            f"{prefix}/variance": statistics.variance,
            f"{prefix}/variance_low": statistics.variance_low,
            f"{prefix}/variance_high": statistics.variance_high,
            f"{prefix}/signal": statistics.signal,
            f"{prefix}/norm": statistics.norm,
        }
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
        return metrics

    def _smooth(self, name: str, variance: float, signal: float) -> tuple[float, float]:
        """Running means of numerator and denominator, one decay for both; never of the ratio."""
        old = self.smoothed.get(name, {"variance": variance, "signal": signal})
        new = {"variance": variance, "signal": signal}
        mean = {key: SMOOTHING * old[key] + (1 - SMOOTHING) * new[key] for key in new}
        self.smoothed[name] = mean
        return mean["variance"], mean["signal"]

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """Wraps one whole update: counts it and its time."""
        start = time.perf_counter()
        yield
        self.update_seconds += time.perf_counter() - start
        self.num_updates += 1

    @contextlib.contextmanager
    def diagnosing(self) -> Iterator[None]:
        """Wraps work that is done only to measure; work inside such work is counted once."""
        outermost, self._inside, start = not self._inside, True, time.perf_counter()
        yield
        if outermost:
            self._inside = False
            self.diagnostic_seconds += time.perf_counter() - start

    @property
    def overhead(self) -> Tensor:
        """Share of all update time so far that went into measuring, the current update left out."""
        total = self.update_seconds
        return torch.tensor(min(self.diagnostic_seconds / total, 1.0) if total > 0 else 0.0)

    def state_dict(self) -> dict[str, Any]:
        smoothed = {name: dict(values) for name, values in self.smoothed.items()}
        return {"num_updates": self.num_updates, "smoothed": smoothed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_updates = state["num_updates"]
        self.smoothed = {name: dict(values) for name, values in state["smoothed"].items()}


def per_trajectory_gradients(policy: Policy, surrogate: Surrogate) -> Gradients:
    """``{parameter: [N, *shape]}`` of a surrogate ``[N]`` that is computed from the policy.

    Raises:
        NonFiniteError: the surrogate is not finite; names the environment.
    """
    recorder = GradientRecorder(policy)
    with recorder.recording():
        values = surrogate()
    require_finite("loss", values.detach())
    return recorder.per_trajectory(values)


def compare(
    score_function: Gradients, pathwise: Gradients, variances: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Variance ratio, cosine, and the squared bias of one of them with its z.

    Args:
        score_function: of every trajectory.
        pathwise: of every trajectory, for the same objective.
        variances: of the two.
    """
    difference = GradientStatistics.of(gradient_difference(score_function, pathwise))
    metrics = {
        "gradient/cosine": cosine(score_function, pathwise),
        "gradient/bias": difference.signal,
        "gradient/bias_low": difference.signal_low,
        "gradient/bias_high": difference.signal_high,
        "gradient/bias_z": difference.significance,
    }
    if float(variances[1]) > 0:
        metrics["gradient/variance_ratio"] = variances[0] / variances[1]
    return metrics


def variance_by_step(action_gradient: Tensor) -> Tensor:
    """Variance over trajectories of an action-space gradient ``[T, N, A]``, by step ``[T]``."""
    return action_gradient.double().var(1, unbiased=True).sum(-1)
