"""Rows of the coverage table in ``docs/estimators.md``: laws of gradients with a known truth."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.diagnostics.statistics import GradientStatistics
from pgtoolkit.scripts.cli.formatting import markdown_row
from pgtoolkit.seeding import stream

F64 = torch.float64

SIZES = (4, 8, 16, 64, 256, 1000)
"""Numbers of trajectories in a batch."""

REPEATS = {4: 1.0, 8: 1.0, 16: 1.0, 64: 1.0, 256: 0.5, 1000: 0.3}
"""Share of the repeats that are made of batches of each size; large ones take longer."""


@final
@dataclasses.dataclass(frozen=True)
class Law:
    """A distribution of gradients."""

    draw: Callable[[int, torch.Generator], Tensor]
    """N gradients ``[N, P]`` in float64."""
    variance: float
    """The exact trace of their covariance."""
    signal: float
    """The exact squared norm of their mean."""


@final
@dataclasses.dataclass(frozen=True)
class Coverage:
    """How often the intervals of batches of one size cover the truth."""

    law: str
    size: int
    variance_shown: float
    """Share of the batches in which the variance has an interval."""
    variance_covered: float
    """Share of these intervals that cover the variance; NaN if there are none."""
    signal_shown: float
    signal_covered: float


def coverage(name: str, law: Law, size: int, repeats: int, seed: int) -> Coverage:
    """Measures batches of ``size`` gradients and counts intervals and hits."""
    generator = stream(seed, f"coverage of {name}, {size}")
    found = [GradientStatistics.of({"p": law.draw(size, generator)}) for _ in range(repeats)]
    ends = torch.tensor(
        [[s.variance_low, s.variance_high, s.signal_low, s.signal_high] for s in found], dtype=F64
    )
    return Coverage(
        name,
        size,
        *_shown_and_covered(ends[:, 0], ends[:, 1], law.variance),
        *_shown_and_covered(ends[:, 2], ends[:, 3], law.signal),
    )


def _shown_and_covered(low: Tensor, high: Tensor, truth: float) -> tuple[float, float]:
    """Share of intervals that are given, and share of those that hold the truth up to rounding."""
    shown = low.isfinite()
    rounding = 1e-9 * abs(truth)
    held = (low <= truth + rounding) & (truth - rounding <= high)
    return float(shown.double().mean()), float(held[shown].double().mean())


def coverage_rows(laws: Mapping[str, Law], repeats: int, seed: int) -> Iterator[Coverage]:
    """The coverage of every law at every size."""
    for name, law in laws.items():
        for size in SIZES:
            yield coverage(name, law, size, math.ceil(REPEATS[size] * repeats), seed)


def table(rows: list[Coverage]) -> str:
    """One line for each law, two columns for each size, in Markdown."""
    names = list(dict.fromkeys(row.law for row in rows))
    sizes = list(dict.fromkeys(row.size for row in rows))
    by_place = {(row.law, row.size): row for row in rows}
    titles = ["law", *(f"N = {n}: {what}" for n in sizes for what in ("V", "U"))]
    lines = [markdown_row(titles), markdown_row(["---"] * len(titles))]
    for name in names:
        cells = [name]
        for n in sizes:
            row = by_place[name, n]
            cells.append(cell(row.variance_shown, row.variance_covered))
            cells.append(cell(row.signal_shown, row.signal_covered))
        lines.append(markdown_row(cells))
    return "\n".join(lines)


def cell(shown: float, covered: float) -> str:
    """Coverage in per cent, and in brackets the share of batches with an interval."""
    return f"{100 * covered:.0f} ({100 * shown:.0f})" if shown > 0 else "none"


def coverage_laws() -> dict[str, Law]:
    """Normal, skewed, heavy-tailed and sparse gradients, and those of ``x^2`` at N(1, 1)."""
    return {
        "normal, P = 1, U = 0": normal_law(0.0),
        "normal, P = 1, U = 1": normal_law(1.0),
        "normal, P = 1, U = 0.04": normal_law(0.2),
        "normal, P = 50, correlated, U = 0": correlated_law(0.0),
        "normal, P = 50, correlated, U = 0.49": correlated_law(0.7),
        "score function of x^2, by mean": quadratic_law(1),
        "score function of x^2, by mean and sigma": quadratic_law(2),
        "log-normal, s = 1": log_normal_law(1.0),
        "log-normal, s = 1.5": log_normal_law(1.5),
        "log-normal with random sign, s = 1": signed_log_normal_law(1.0),
        "log-normal with random sign, s = 1.5": signed_log_normal_law(1.5),
        "Student's t, 3 degrees": student_law(3),
        "Student's t, 5 degrees": student_law(5),
        "exponential less 1": Law(lambda n, g: -uniform(n, 1, g).log() - 1, 1.0, 0.0),
        "normal in 5 % of trajectories, else 0": sparse_law(0.05),
        "normal in 1 % of trajectories, else 0": sparse_law(0.01),
        "score function less pathwise of x^2": difference_law(),
    }


def normal(n: int, p: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, p, generator=generator, dtype=F64)


def uniform(n: int, p: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, p, generator=generator, dtype=F64)


def normal_law(mean: float) -> Law:
    return Law(lambda n, g: mean + normal(n, 1, g), 1.0, mean**2)


def correlated_law(mean: float) -> Law:
    """50 entries with variances ``0.8^k`` in rotated axes: about 9 effective dimensions."""
    spectrum = 0.8 ** torch.arange(50, dtype=F64)
    fixed = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(50, 50, generator=fixed, dtype=F64))[0]
    offset = torch.zeros(50, dtype=F64)
    offset[0] = mean
    return Law(
        lambda n, g: offset + (normal(n, 50, g) * spectrum.sqrt()) @ axes.T,
        float(spectrum.sum()),
        mean**2,
    )


def quadratic_law(parameters: int) -> Law:
    """``x^2 eps`` and ``x^2 (eps^2 - 1)``, by mean and sigma; or only the first."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        eps = normal(n, 1, generator)
        f = (1 + eps).square()
        return torch.cat([f * eps, f * (eps.square() - 1)], 1)[:, :parameters]

    return Law(draw, [30.0, 166.0][parameters - 1], [4.0, 8.0][parameters - 1])


def log_normal_law(s: float) -> Law:
    square = math.exp(s * s)
    return Law(lambda n, g: (s * normal(n, 1, g)).exp(), (square - 1) * square, square)


def signed_log_normal_law(s: float) -> Law:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        sign = torch.where(uniform(n, 1, generator) < 0.5, -1.0, 1.0)
        return sign * (s * normal(n, 1, generator)).exp()

    return Law(draw, math.exp(2 * s * s), 0.0)


def student_law(degrees: int) -> Law:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        squares = normal(n, degrees, generator).square().mean(1, keepdim=True)
        return normal(n, 1, generator) / squares.sqrt()

    return Law(draw, degrees / (degrees - 2), 0.0)


def sparse_law(share: float) -> Law:
    """Two normal entries in that share of trajectories, as where a reward is rare."""

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return (uniform(n, 1, generator) < share) * normal(n, 2, generator)

    return Law(draw, 2 * share, 0.0)


def difference_law() -> Law:
    """``(x^2 - 2) eps - 2 x`` with x = 1 + eps: the matched difference by the mean, without bias.

    It is ``eps^3 + 2 eps^2 - 3 eps - 2``; the variance is integrated by Gauss-Hermite quadrature.
    """

    def difference(eps: Tensor) -> Tensor:
        return ((1 + eps).square() - 2) * eps - 2 * (1 + eps)

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    square = difference(torch.from_numpy(nodes)).square()
    variance = float((torch.from_numpy(weights / weights.sum()) * square).sum())
    return Law(lambda n, g: difference(normal(n, 1, g)), variance, 0.0)
