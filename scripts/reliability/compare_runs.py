"""Compares two run folders bit for bit: what a resume needs, the best policy, and TensorBoard."""

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pgtoolkit.training.checkpoint import load_checkpoint
from pgtoolkit.training.run_folder import RunFolder

TIMED = ("time/", "gradient/overhead")
"""Tags of what depends on the clock."""

TIMES = ("seconds", "time", "overhead", "wall")
"""Parts of the names of numbers in a state that depend on the clock."""


def differences(one: Path, other: Path) -> list[str]:
    """The places at which two runs differ, in words."""
    found = []
    for name in ("resume_file", "best"):
        pair = [_file(RunFolder(path), name) for path in (one, other)]
        if pair[0].exists() != pair[1].exists():
            found.append(f"only one has {pair[0].name}")
        elif pair[0].exists():
            states = [dict(leaves(read(RunFolder(path), name))) for path in (one, other)]
            found += [f"{pair[0].name}{key}" for key in _unequal(*states)]
    scalars = [shown_scalars(path) for path in (one, other)]
    return found + [f"TensorBoard {tag}" for tag in _unequal(*scalars)]


def read(run: RunFolder, name: str) -> Any:
    """The state in a file of a run; that of the resume file with its replay buffer."""
    if name == "resume_file":
        return run.read_resume()[0]
    return load_checkpoint(_file(run, name))


def leaves(state: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    """The tensors and values of a nested state by their paths, as bytes; not the times."""
    if isinstance(state, dict):
        for key, value in state.items():
            if not _is_time(str(key)):
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from leaves(value, f"{path}/{index}")
    elif isinstance(state, torch.Tensor):
        shape = f"{state.dtype} {list(state.shape)} ".encode()
        yield path, shape + state.cpu().numpy().tobytes()
    else:
        yield path, struct.pack("d", state) if isinstance(state, float) else repr(state).encode()


def shown_scalars(path: Path) -> dict[str, bytes]:
    """Steps and values of every scalar that TensorBoard shows of a run, by tag, as bytes.

    Of tags that depend on the clock only the steps.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of what a resume voids
    events: Any = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["scalars"]:
        rows = [(e.step, 0.0 if tag.startswith(TIMED) else e.value) for e in events.Scalars(tag)]
        found[tag] = b"".join(struct.pack("qd", *row) for row in rows)
    return found


def _unequal(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]


def _is_time(key: str) -> bool:
    return key.startswith(TIMED) or any(part in key.split("_") for part in TIMES)


def _file(run: RunFolder, name: str) -> Path:
    return run.resume_file if name == "resume_file" else run.policy_file("best")
