"""The process-wide random generators, which an environment must leave alone."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch

Library = Literal["torch", "numpy", "random"]
LIBRARIES: tuple[Library, ...] = ("torch", "numpy", "random")
CALLS = {"torch": "torch.rand", "numpy": "np.random", "random": "random.random"}
"""What a line that draws from each looks like."""


UNUSUAL = 1_234_567_891
"""A seed that nobody else uses: who seeds shows as well as who draws."""


def reseed(seeds: dict[Library, int]) -> None:
    """Puts each into a known state."""
    torch.manual_seed(seeds["torch"])
    np.random.seed(seeds["numpy"])
    random.seed(seeds["random"])


def fingerprint() -> dict[Library, object]:
    """Something that changes as soon as one is drawn from, or seeded."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (kind, np.asarray(keys).tobytes(), *rest),
        "random": random.getstate(),
    }


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Puts them back as they were."""
    states = torch.get_rng_state(), np.random.get_state(legacy=True), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def changes_with(
    call: Callable[[], object], same: Callable[[object, object], bool]
) -> list[Library]:
    """The libraries on whose seed the result depends; none, if it differs without them.

    Args:
        call: what is looked at.
        same: whether two results are equal.
    """
    usual: dict[Library, int] = dict.fromkeys(LIBRARIES, 1)
    reseed(usual)
    first = call()
    reseed(usual)
    if not same(first, call()):
        return []
    found = []
    for library in LIBRARIES:
        reseed(usual | {library: 2})
        if not same(first, call()):
            found.append(library)
    return found


def touched_by(call: Callable[[], object]) -> list[Library]:
    """The libraries whose generator the call draws from, or seeds."""
    reseed(dict.fromkeys(LIBRARIES, UNUSUAL))
    before = fingerprint()
    call()
    after = fingerprint()
    return [library for library in LIBRARIES if before[library] != after[library]]
