"""The charts of a report, in the order of the questions: learning, gradients, bias, trouble."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

import numpy as np

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.scripts.comparison.curves import Curve, band
from pgtoolkit.scripts.comparison.scalars import EVALUATION, Scalars, curve_of
from pgtoolkit.scripts.reporting.runs import Experiment
from pgtoolkit.scripts.reporting.svg import Array, Chart, Line, Scale

MAX_BAND_POINTS = 100
"""Points at which the statistics over seeds are computed."""

COLOURS = 7
"""Classes ``c0`` to ``c6`` of the style sheet; the eighth experiment has the first one's again."""


@final
class Section(NamedTuple):
    """Charts that answer one question."""

    title: str
    text: str
    charts: Sequence[Chart]


@final
class Styled(NamedTuple):
    """An experiment, its class in the style sheet, and its name in legends."""

    experiment: Experiment
    style: str
    name: str


def styled(experiments: Sequence[Experiment]) -> list[Styled]:
    """A style for each experiment, the same in all charts; one that is alone is drawn as text is.

    Colours of estimators are others, so that no colour has two meanings.
    """
    envs = {experiment.env for experiment in experiments}
    found = []
    for index, each in enumerate(experiments):
        name = f"{each.label} on {each.env}" if len(envs) > 1 else each.label
        style = f"c{index % COLOURS}" if len(experiments) > 1 else "ink"
        if index >= COLOURS:
            style += " dashed"
        found.append(Styled(each, style, name))
    return found


def sections(experiments: Sequence[Styled]) -> Iterator[Section]:
    """The sections of one environment; the charts in a section are those with data."""
    alone = len(experiments) == 1
    return iter(
        (
            Section(
                "Is it learning?",
                "Returns are undiscounted, in the environment's unit of reward.",
                charts(
                    [
                        Quantity("Return of evaluations, deterministic actions", EVALUATION),
                        Quantity(
                            "Return while training, mean of 100 episodes", "rollout/ep_rew_mean"
                        ),
                        Quantity("Evidence lower bound", "variational/elbo"),
                    ],
                    experiments,
                ),
            ),
            Section(
                "Which gradient is better?",
                "Variances and ratios are of one trajectory's gradient (of one state's with sac, "
                "td3 and reppo, which cannot be compared with the others'); bands and bars are "
                "95 % intervals.",
                gradient_charts(experiments, alone=alone),
            ),
            Section("Is it biased?", BIAS_TEXT, charts(BIASES, experiments)),
            Section("What is wrong?", "", charts(SYMPTOMS, experiments)),
        )
    )


@final
@dataclasses.dataclass(frozen=True)
class Quantity:
    """A chart with one line for each experiment."""

    title: str
    tag: str
    """TensorBoard tag; ``{followed}`` in it is the estimator that the optimiser follows."""
    note: str = ""
    scale: Scale = "linear"
    references: Sequence[tuple[float, str]] = ()


BIAS_TEXT = (
    "The mean difference of two estimates on the same trajectories. A z above the threshold shows "
    "a bias; a smaller one proves nothing while the least bias that would be seen is large."
)

BIASES = [
    quantity
    for group, pair in (
        ("gradient", "pathwise against the score function"),
        ("gradient/critic", "critic against the exact gradient"),
    )
    for quantity in (
        Quantity(
            f"z of the bias, {pair}",
            f"{group}/bias_z",
            "above the line: biased",
            references=[(BIAS_Z, f"{BIAS_Z:g}: biased above")],
        ),
        Quantity(
            f"Least bias that would be seen, {pair}",
            f"{group}/log10_detectable_bias",
            "squared, over the signal; above the line: too few trajectories to tell",
            "log",
            [(math.log10(BIAS_SHARE), f"{BIAS_SHARE:.0%} of the signal")],
        ),
        Quantity(
            f"Cosine, {pair}",
            f"{group}/cosine",
            "1: the same direction; noise makes it smaller",
            references=[(0.0, "")],
        ),
    )
]

SYMPTOMS = [
    Quantity(
        "Largest share of one trajectory in the variance",
        "gradient/{followed}/largest_share",
        "near 1: one trajectory makes up the variance; do not trust it",
    ),
    Quantity("Norm of the policy's gradient, before clipping", "train/gradient_norm", "", "log"),
    Quantity(
        "Explained variance of the value function or critic",
        "train/explained_variance",
        "1 is perfect; below 0 a constant would be better",
        references=[(0.0, "")],
    ),
    Quantity("Share of saturated actions", "train/saturated_actions", "where tanh is flat"),
    Quantity("Standard deviation of the policy", "train/std"),
    Quantity("Environment steps per second", "time/fps_now"),
]


def gradient_charts(experiments: Sequence[Styled], *, alone: bool) -> list[Chart]:
    """SNR, variances and ratios. The variances of an experiment that is alone are one chart."""
    snr = Quantity(
        "Signal-to-noise ratio of the gradient that trains",
        "gradient/{followed}/snr",
        "signal over variance of one trajectory; no point where it is not above 0",
        "log",
    )
    ratios = [
        Quantity(
            f"Variance, score function over {other}",
            f"{tag}/variance_ratio",
            f"above 1: {other} is better",
            "log",
            [(0.0, "break-even")],
        )
        for other, tag in (("pathwise", "gradient"), ("critic", "gradient/critic_on_states"))
    ]
    if alone:
        variances = variances_of(experiments[0].experiment)
    else:
        variances = charts(
            [
                Quantity(f"Variance, {row.label}", f"gradient/{name}/variance", "", "log")
                for name, row in CATALOGUE.items()
            ],
            experiments,
        )
    return [*charts([snr], experiments), *variances, *charts(ratios, experiments)]


def variances_of(experiment: Experiment) -> list[Chart]:
    """The variance of every estimator that an experiment has measured, in their own colours."""
    lines = []
    # Mixed is drawn last and dashed, so that the line below it stays visible.
    for name, row in sorted(CATALOGUE.items(), key=lambda item: item[0] == "mixed"):
        label = f"{row.label}, which trains" if name == experiment.followed else row.label
        style = f"e-{name} dashed" if name == "mixed" else f"e-{name}"
        found = line_of(experiment, f"gradient/{name}/variance", style, label, "log")
        lines += [] if found is None else [found]
    return [Chart("Variance of one trajectory's gradient", "", lines, "log")] if lines else []


def charts(quantities: Sequence[Quantity], experiments: Sequence[Styled]) -> list[Chart]:
    """The charts of those quantities that an experiment has measured."""
    found = []
    for each in quantities:
        lines = [
            line_of(e, each.tag.format(followed=e.followed), style, name, each.scale)
            for e, style, name in experiments
        ]
        known = [line for line in lines if line is not None]
        if known:
            found.append(Chart(each.title, each.note, known, each.scale, each.references))
    return found


def line_of(experiment: Experiment, tag: str, style: str, label: str, scale: Scale) -> Line | None:
    """The line of a tag: of one run with its interval, of several their statistics.

    Several are shown as the interquartile mean over the seeds with its 95 % bootstrap interval. On
    the scale ``log`` it is that of the logarithms. None unless each run has the tag.
    """
    # A tag that is a logarithm already is left as it is.
    take = log10 if scale == "log" and not tag.rpartition("/")[2].startswith("log10") else as_it_is
    found = [curve_of(run.scalars, tag) for run in experiment.runs]
    curves = [taken for curve in found if curve is not None and len((taken := take(curve)).x)]
    if not curves or len(curves) < len(experiment.runs):
        return None
    if len(curves) == 1:
        low, high = (
            _end(experiment.runs[0].scalars, f"{tag}_{e}", curves[0].x, take) for e in ENDS
        )
        return Line(label, style, curves[0].x, curves[0].y, low, high)
    statistics = band([shortened(curve) for curve in curves])
    return Line(label, style, statistics.x, statistics.iqm, statistics.low, statistics.high)


ENDS = ("low", "high")


def as_it_is(curve: Curve) -> Curve:
    return curve


def log10(curve: Curve) -> Curve:
    """The logarithms of the positive values."""
    positive = curve.y > 0
    return Curve(curve.x[positive], np.log10(curve.y[positive]))


def _end(scalars: Scalars, tag: str, x: Array, take: Callable[[Curve], Curve]) -> Array:
    """The end of an interval at these steps; NaN where it is not known."""
    curve = curve_of(scalars, tag)
    if curve is None:
        return np.full(len(x), np.nan)
    taken = take(curve)
    known = dict(zip(taken.x.tolist(), taken.y.tolist(), strict=True))
    return np.array([known.get(step, np.nan) for step in x.tolist()])


def shortened(curve: Curve) -> Curve:
    """The curve at no more than ``MAX_BAND_POINTS`` points: means of neighbouring ones."""
    count = min(len(curve.x), MAX_BAND_POINTS)
    parts = np.array_split(np.arange(len(curve.x)), count)
    return Curve(*(np.array([a[part].mean() for part in parts]) for a in (curve.x, curve.y)))
