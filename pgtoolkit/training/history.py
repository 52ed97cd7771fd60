"""What a diagnosis remembers of a run: the recent values of the tags that it reads."""

import dataclasses
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Self, final

from pgtoolkit.state import (
    anything,
    entries,
    integer,
    mapping,
    number,
    optional,
    require,
    series,
    text,
)

RECENT = 50
"""Values of a tag that are kept: the longest window of any rule, that of the KL spikes."""
EARLY = 10
"""First values of a tag that are kept, as a measure of what is usual at the start of a run."""

EVAL_ERROR = "eval/standard_error"

UPDATE_TAGS = frozenset(
    {
        "environment/model_error",
        "eval/mean_reward",
        EVAL_ERROR,
        "rollout/ep_rew_mean",
        "train/approx_kl",
        "train/clip_fraction",
        "train/clipped_actions",
        "train/explained_variance",
        "train/gradient_clipped",
        "train/policy_gain",
        "train/saturated_actions",
        "train/std",
        "gradient/adjoint_growth",
        "gradient/bias",
        "gradient/bias_low",
        "gradient/bias_z",
        "gradient/critic/bias_low",
        "gradient/critic/bias_z",
        "gradient/critic/cosine",
        "gradient/critic/cosine_high",
        "gradient/critic/cosine_low",
        "gradient/critic_on_states/variance_ratio_high",
        "gradient/critic_on_states/variance_ratio_low",
        "gradient/log10_detectable_bias",
        "gradient/mix/guarded",
        "gradient/trajectories",
        "gradient/variance_ratio",
        "gradient/variance_ratio_high",
        "gradient/variance_ratio_low",
    }
)
"""Tags that a diagnosis reads; all are optional."""
ESTIMATOR_TAGS = frozenset({"followed", "largest_share", "signal", "signal_z", "variance"})
"""The same, of each estimator: ``gradient/{estimator}/...``."""


def watched(tag: str) -> bool:
    """Whether a diagnosis reads this tag."""
    group, _, rest = tag.partition("/")
    estimator, _, what = rest.partition("/")
    return tag in UPDATE_TAGS or (
        group == "gradient" and bool(estimator) and what in ESTIMATOR_TAGS
    )


@final
@dataclasses.dataclass
class Series:
    """The values of one tag.

    Attributes:
        early: the first ``EARLY`` values.
        steps: environment steps of the recent values.
        recent: the last ``RECENT`` values.
        highest: the highest value so far.
        highest_step: environment step of the last value as high as that.
    """

    early: list[float] = dataclasses.field(default_factory=list)
    steps: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT))
    recent: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT))
    highest: float = -math.inf
    highest_step: int = 0

    def add(self, value: float, step: int) -> None:
        if len(self.early) < EARLY:
            self.early.append(value)
        self.steps.append(step)
        self.recent.append(value)
        if value >= self.highest:
            self.highest, self.highest_step = value, step

    def last(self, count: int) -> list[float]:
        """The last values, at most ``count``."""
        return list(self.recent)[-count:]

    def median(self, count: int) -> float:
        """The median of the last values."""
        return statistics.median(self.last(count))

    def state_dict(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, deque | list) else v for k, v in values.items()}

    @staticmethod
    def schema(state: Any, path: str) -> None:
        """The schema of :meth:`state_dict`: a value at least, and a step of each recent value."""
        schemas = {
            "early": series(number(), 1, EARLY),
            "steps": series(integer(), 1, RECENT),
            "recent": series(number(), 1, RECENT),
            "highest": number(),
            "highest_step": integer(),
        }
        require(state, entries(schemas), path)
        count = len(state["steps"])
        require(state["recent"], series(anything, count, count), f"{path}/recent")

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """The series that :meth:`state_dict` describes."""
        series = cls(**{k: v for k, v in state.items() if k not in ("steps", "recent")})
        series.steps.extend(state["steps"])
        series.recent.extend(state["recent"])
        return series


@final
class History:
    """The watched tags of a run.

    Attributes:
        series: tag to its values.
        followed: name of the estimator that the optimiser follows; None before a measurement, and
            where several are measured and the metrics do not say which one is followed.
        settings: names of the agent's settings, which advice may name; None if not known. They are
            the agent's and no part of the state.
    """

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.followed: str | None = None
        self.settings: frozenset[str] | None = None

    def add(self, scalars: Mapping[str, float], step: int) -> frozenset[str]:
        """Adds the watched ones of these scalars; returns their tags.

        A value that is not finite counts as absent.
        """
        found = {tag: x for tag, x in scalars.items() if watched(tag) and math.isfinite(x)}
        for tag, value in found.items():
            self.series.setdefault(tag, Series()).add(value, step)
        self.followed = followed_of(found) or self.followed
        return frozenset(found)

    def get(self, tag: str) -> Series | None:
        """The values of a tag; None if it has never been seen."""
        return self.series.get(tag)

    def now(self, tag: str) -> float | None:
        """The latest value of a tag."""
        series = self.series.get(tag)
        return None if series is None else series.recent[-1]

    def estimators(self) -> list[str]:
        """The estimators of the latest measurement."""
        found = {tag: series.steps[-1] for tag, series in self.series.items() if is_variance(tag)}
        return [tag.split("/")[1] for tag, step in found.items() if step == max(found.values())]

    def state_dict(self) -> dict[str, Any]:
        series = {tag: series.state_dict() for tag, series in self.series.items()}
        return {"series": series, "followed": self.followed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            StateError: it does not fit.
        """
        series_of_tags = mapping(Series.schema, keys=watched)
        require(state, entries({"series": series_of_tags, "followed": optional(text)}))
        self.series = {tag: Series.of(found) for tag, found in state["series"].items()}
        self.followed = state["followed"]


def followed_of(tags: Iterable[str]) -> str | None:
    """The estimator that these tags of one update mark as followed, or the only one measured."""
    found = list(tags)
    marked = [tag for tag in found if tag.startswith("gradient/") and tag.endswith("/followed")]
    candidates = marked or [tag for tag in found if is_variance(tag)]
    return candidates[0].split("/")[1] if len(candidates) == 1 else None


def is_variance(tag: str) -> bool:
    """Whether this is the variance of an estimator's gradient."""
    return tag.startswith("gradient/") and tag.endswith("/variance")
