"""Whether two runs are the same: all tensors and numbers of their files, and their scalars."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pgtoolkit.training.checkpoint import load_checkpoint
from pgtoolkit.training.progress import is_timed
from pgtoolkit.training.run_folder import RunFolder

Scalars = dict[str, list[tuple[int, float]]]

CLOCKS = ("/progress/cpu_seconds",)
"""Places in a resume file of what depends on the clock."""


def differences(run: Path, other: Path) -> list[str]:
    """What differs between two run folders, one line each; empty for equal ones.

    Compared are the bytes of all tensors from which the runs would go on, replay buffers included,
    and of the policies; every other value beside them; and the scalars that TensorBoard shows. Of
    scalars that measure time, the steps.
    """
    one, two = (RunFolder(path).read_resume()[0] for path in (run, other))
    found = [f"resume{line}" for line in state_differences(one, two)]
    for name in ("policy/last", "policy/best"):
        one, two = (load_checkpoint(path / f"{name}.safetensors") for path in (run, other))
        found += [f"{name}{line}" for line in state_differences(one, two)]
    return found + scalar_differences(shown_scalars(run), shown_scalars(other))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Places and values of all that is not a dictionary, list or tuple in a nested state.

    What depends on the clock is left out.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if f"{path}/{key}" not in CLOCKS:
                yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}/{index}")
    else:
        yield path, value


def state_differences(one: Any, two: Any) -> list[str]:
    """Places at which two nested states differ, be it by one bit."""
    left, right = dict(leaves(one)), dict(leaves(two))
    missing = [f"{path}: only in one of them" for path in sorted(left.keys() ^ right.keys())]
    both = [path for path in left if path in right]
    return missing + [f"{path}: differs" for path in both if not _same(left[path], right[path])]


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.dtype != two.dtype or one.shape != two.shape:
            return False
        return bool(one.cpu().numpy().tobytes() == two.cpu().numpy().tobytes())
    return type(one) is type(two) and repr(one) == repr(two)


def shown_scalars(run: Path) -> Scalars:
    """TensorBoard tag to its steps and values, as TensorBoard shows them."""
    events: Any = EventAccumulator(str(run), {"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def scalar_differences(one: Scalars, two: Scalars) -> list[str]:
    """Tags whose steps or values differ."""
    return [
        f"{tag}: {len(one.get(tag, []))} and {len(two.get(tag, []))} values, not the same"
        for tag in sorted(one.keys() | two.keys())
        if _comparable(tag, one) != _comparable(tag, two)
    ]


def _comparable(tag: str, scalars: Scalars) -> list[tuple[int, float | None]]:
    """A tag's series with None for NaN, which equals nothing, and for times."""
    return [
        (step, None if is_timed(tag) or math.isnan(value) else value)
        for step, value in scalars.get(tag, [])
    ]
