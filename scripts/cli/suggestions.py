"""Names of options and settings that a user may have meant."""

import difflib
from collections.abc import Callable, Iterable, Sequence

LEAST_SIMILARITY = 0.7
"""What a name must have in common with the given one, of 1, to be suggested."""

SIMILARITY_BELOW_BEST = 0.2
"""How much less another suggestion may have in common with it than the best one."""

MOST_NAMES = 3

EXTRA_WORD = 0.05
"""What every word costs that only the suggestion has, so that short names come first."""

PART = 0.85
"""What two words have in common of which one begins or ends with the other."""

LEAST_BEGINNING, LEAST_END = 3, 5
"""Letters of such a part: ``ent`` of ``entropy``, ``steps`` of ``timesteps``."""


def did_you_mean(given: str, names: Iterable[str], written: Callable[[str], str] = str) -> str:
    """``did you mean total_steps or n_steps? ``, or nothing if no name is close.

    Args:
        given: the name that there is not.
        names: those that there are.
        written: a name as the user writes it, such as ``--total-steps``.
    """
    close = [written(name) for name in similar_names(given, list(names))]
    if not close:
        return ""
    *others, last = close
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}? "


def similar_names(given: str, names: Sequence[str]) -> list[str]:
    """The names that are close to one that is not among them, the closest first.

    A name is close if it is spelt alike (``gammma``: ``gamma``), if the words of the given one are
    among its own (``steps``: ``total_steps``), or if its words have these initials (``lr``:
    ``learning_rate``).
    """
    scores = {name: similarity(given, name) for name in names}
    least = max([LEAST_SIMILARITY, *(s - SIMILARITY_BELOW_BEST for s in scores.values())])
    close = [name for name in names if scores[name] >= least]
    return sorted(close, key=lambda name: -scores[name])[:MOST_NAMES]


def similarity(given: str, name: str) -> float:
    """What two names have in common, from 0 to 1, by spelling, words or initials."""
    words, others = given.split("_"), name.split("_")
    if len(others) > 1 and given.replace("_", "") == "".join(word[:1] for word in others):
        return 1.0
    found = sum(max(word_similarity(word, other) for other in others) for word in words)
    by_words = found / len(words) - EXTRA_WORD * max(len(others) - len(words), 0)
    return max(_ratio(given, name), by_words)


def word_similarity(one: str, two: str) -> float:
    """What two words have in common, from 0 to 1."""
    shorter, longer = sorted((one, two), key=len)
    begins = longer.startswith(shorter) and len(shorter) >= LEAST_BEGINNING
    ends = longer.endswith(shorter) and len(shorter) >= LEAST_END
    return max(_ratio(one, two), PART if begins or ends else 0.0)


def _ratio(one: str, two: str) -> float:
    return difflib.SequenceMatcher(None, one, two).ratio()
