"""The parts of a flattened observation, as a run says them before it trains."""

from typing import Any

from gymnasium import spaces

from pgtoolkit.networks.flat_rows import sections
from pgtoolkit.networks.parts import ACTION_MASK, PRIVILEGED, RowWithParts

MOST_PARTS = 8
"""Most parts that are named; of more, those that only some networks read."""

READERS = {
    PRIVILEGED: "value and Q functions read it, the policy does not",
    ACTION_MASK: "says which actions are allowed",
}


def parts_sentence(own: spaces.Space[Any] | None, space: spaces.Space[Any]) -> str | None:
    """Which entries of an observation are which part; None if it has none.

    ``observation: 4 numbers: cell 0, privileged 1 (value and Q functions read it, ...)``

    Args:
        own: the environment's observation space, before it was flattened.
        space: as the agent reads it.
    """
    if isinstance(own, spaces.Dict | spaces.Tuple):
        named = [(x.name, x.start, x.stop) for x in sections(own)]
    elif isinstance(space, RowWithParts):
        special = {PRIVILEGED: space.privileged, ACTION_MASK: space.action_mask}
        named = [(name, *part) for name, part in special.items() if part is not None]
    else:
        return None
    size = spaces.flatdim(space)
    shown = [x for x in named if len(named) <= MOST_PARTS or x[0] in READERS]
    listed = ", ".join(_part(*x) for x in shown)
    counted = f"{len(named)} part" + "s" * (len(named) > 1)
    found = f"observation: {size} numbers, of {counted}"
    return f"{found}: {listed}" if listed else found


def _part(name: str, start: int, stop: int) -> str:
    place = f"{start}" if stop == start + 1 else f"{start} to {stop - 1}"
    reader = READERS.get(name)
    return f"{name} {place}" + (f" ({reader})" if reader else "")
