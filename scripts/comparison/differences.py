"""Whether one agent of a comparison returns more than another: differences with intervals."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from pgtoolkit.scripts.cli.files import number_or_null
from pgtoolkit.scripts.comparison.rows import Row
from pgtoolkit.scripts.comparison.statistics import CONFIDENCE, Interval
from pgtoolkit.scripts.comparison.table import return_text

LEGEND = (
    "difference: of the mean returns, with its 95 % interval by Welch's t for unequal variances, "
    "which holds for few seeds as far as returns are normal; greater: share of the pairs of seeds "
    "in which the first agent returns more."
)


@final
class Difference(NamedTuple):
    """The returns of an agent less those of another one on the same environment."""

    env: str
    first: str
    second: str
    mean: float
    """The difference of the means over seeds."""
    interval: Interval
    """Its 95 % interval; NaN where one of the two has a single seed."""
    greater: float
    """Share of the pairs of seeds in which the first returns more; a tie counts half."""

    @property
    def text(self) -> str:
        """``shac - ppo: 12 [3, 21], greater in 89 % of the pairs of seeds``."""
        low, high = map(return_text, self.interval)
        ends = "no interval" if self.interval.low != self.interval.low else f"{low}, {high}"
        return (
            f"{self.first} - {self.second} on {self.env}: {return_text(self.mean)} [{ends}], "
            f"greater in {self.greater:.0%} of the pairs of seeds"
        )

    def as_dict(self) -> dict[str, Any]:
        """The difference in the JSON file, as an entry of the first agent's row."""
        return {
            "agent": self.second,
            "difference": self.mean,
            "low": number_or_null(self.interval.low),
            "high": number_or_null(self.interval.high),
            "greater": self.greater,
        }


def differences(rows: Sequence[Row]) -> list[Difference]:
    """Of the agents on each environment, each less every one that was named after it."""
    return [
        difference(first, second)
        for first, second in itertools.combinations(rows, 2)
        if first.env == second.env
    ]


def difference(first: Row, second: Row) -> Difference:
    """The difference of two rows of one environment."""
    ours, theirs = (np.array(row.final_returns) for row in (first, second))
    wins = np.sign(ours[:, None] - theirs[None, :])
    mean = float(ours.mean() - theirs.mean())
    interval, greater = welch_interval(ours, theirs), float((wins.mean() + 1) / 2)
    return Difference(first.env, first.label, second.label, mean, interval, greater)


def welch_interval(ours: Any, theirs: Any) -> Interval:
    """The 95 % interval of the difference of two means, whose variances may differ.

    ``m +- t_df sqrt(s_1^2 / n_1 + s_2^2 / n_2)``, with the degrees of freedom of Welch and
    Satterthwaite.

    Args:
        ours: ``[n_1]`` one number for each seed.
        theirs: ``[n_2]``.
    """
    if min(len(ours), len(theirs)) < 2:
        return Interval(np.nan, np.nan)
    if ours.std() == theirs.std() == 0:  # such as all at the greatest return there is
        return Interval(*[float(ours.mean() - theirs.mean())] * 2)
    from scipy import stats

    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(float(found.low), float(found.high))


def differences_text(rows: Sequence[Row]) -> str:
    """A line for each difference, and what the numbers are; empty for a single agent."""
    found = differences(rows)
    return "\n".join([*(each.text for each in found), LEGEND]) if found else ""


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows in the JSON file, each with what it is ahead of the rows that come after it."""
    found = differences(rows)
    return [
        row.as_dict()
        | {"against": [x.as_dict() for x in found if (x.env, x.first) == (row.env, row.label)]}
        for row in rows
    ]
