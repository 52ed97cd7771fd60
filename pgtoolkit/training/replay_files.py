"""The replay buffer of a run, in files beside its resume files.

Every checkpoint writes the transitions that were added since the last one into a file of their own,
``replay-START-STOP-CHAIN.safetensors``, and never changes it. ``START`` and ``STOP`` count the
transitions of the run; ``CHAIN`` is a hash of the file's transitions and of the chain before them.
A resume file says how many transitions its buffer had seen, and the chain there. So every resume
file, the newest or an older one, finds exactly its own buffer, whenever the run was killed, and a
checkpoint costs as much as the steps since the last one, however large the buffer is.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import torch
from torch import Tensor

from pgtoolkit.state import anything, entries, equal, integer, mapping, require, text
from pgtoolkit.training.checkpoint import CheckpointError, encode_state, load_checkpoint
from pgtoolkit.training.storage.files import open_folder, remove, replace_file

REPLAY_NAME = re.compile(
    r"replay-(?P<start>[0-9]{1,18})-(?P<stop>[0-9]{1,18})-(?P<chain>[0-9a-f]{16})\.safetensors"
)
FIRST_CHAIN = "0" * 16
"""The chain before the first transition."""
MAX_REPLAY_BYTES = 64 * 1024**3
"""Largest file of transitions that is read."""
MARK_SCHEMA = entries({"capacity": integer(1), "added": integer(), "chain": text})


@final
class ReplayFile(NamedTuple):
    """The file of the transitions ``start`` to ``stop``, by its name."""

    start: int
    stop: int
    chain: str
    """The chain at ``stop``."""

    @property
    def name(self) -> str:
        return f"replay-{self.start}-{self.stop}-{self.chain}.safetensors"

    @classmethod
    def all_in(cls, path: Path) -> list[Self]:
        """Those of a folder, the oldest first."""
        matches = [REPLAY_NAME.fullmatch(name) for name in os.listdir(path)]
        found = [cls(int(m["start"]), int(m["stop"]), m["chain"]) for m in matches if m]
        return sorted(found, key=lambda file: (file.stop, file.start, file.chain))


def write_new_transitions(path: Path, replay: Mapping[str, Any], keep: int) -> dict[str, Any]:
    """Writes what was added to a buffer since the last file, and removes what no run needs.

    Args:
        path: the run's folder. Its files must belong to the buffer: see :func:`remove_after`.
        replay: the state of a :class:`ReplayBuffer <pgtoolkit.rollouts.replay.ReplayBuffer>`.
        keep: the number of resume files that are kept; each can still be gone on from.

    Returns:
        The mark that a resume file holds in the place of the buffer.

    Raises:
        OSError: the system refuses, such as on a full disk.
    """
    files, added, capacity = ReplayFile.all_in(path), replay["added"], replay["capacity"]
    last = files[-1] if files else ReplayFile(0, 0, FIRST_CHAIN)
    start = max(last.stop, added - capacity)
    if added > start:
        tensors = rows_since(replay, start)
        chain = chain_after(last.chain, tensors)
        last = ReplayFile(start, added, chain)
        state = {"start": start, "stop": added, "chain": chain, "tensors": tensors}
        replace_file(path / last.name, encode_state(state), inside=path)
        files.append(last)
    oldest = files[-min(keep, len(files))].stop - capacity if files else 0
    with open_folder(path, inside=path) as folder:
        for file in files:
            if file.stop <= oldest:
                remove(folder, file.name)
    return {"capacity": capacity, "added": added, "chain": last.chain}


def read_transitions(path: Path, mark: Any) -> dict[str, Any]:
    """The state of the buffer that a resume file's mark names.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this run.
        StateError: the mark is damaged.
    """
    require(mark, MARK_SCHEMA, "agent/replay")
    capacity, added = mark["capacity"], mark["added"]
    tensors: dict[str, Tensor] = {}
    before: str | None = None  # the chain before the oldest file is not known
    for file in chain_of_files(path, mark):
        found = read_file(path, file)
        if before is not None and chain_after(before, found) != file.chain:
            raise misfit(path / file.name)
        before = file.chain
        if not tensors:
            size = min(added, capacity)
            tensors = {name: x.new_empty((size, *x.shape[1:])) for name, x in found.items()}
        first = max(file.start, added - capacity)
        places = torch.arange(first, file.stop) % capacity
        for name, x in found.items():
            if name not in tensors or tensors[name].shape[1:] != x.shape[1:]:
                raise misfit(path / file.name)
            tensors[name][places] = x[first - file.start :]
    return {"capacity": capacity, "added": added, "tensors": tensors}


def chain_of_files(path: Path, mark: Mapping[str, Any]) -> list[ReplayFile]:
    """The files that together hold the buffer of a mark, the oldest first.

    Raises:
        CheckpointError: one is missing.
    """
    files, needed = ReplayFile.all_in(path), max(0, mark["added"] - mark["capacity"])
    found: list[ReplayFile] = []
    stop, chain = mark["added"], mark["chain"]
    while stop > needed:
        ends = [f for f in files if f.stop == stop and f.start < stop and chain in ("", f.chain)]
        if not ends:
            raise CheckpointError(
                f"{path} lacks the file of the replay buffer's transitions before {stop:,} that "
                "belongs to its resume file",
                "put the file back, or train again",
            )
        found.insert(0, ends[-1])
        stop, chain = ends[-1].start, ""
    return found


def read_file(path: Path, file: ReplayFile) -> dict[str, Tensor]:
    """The transitions of a file, compared with its name and with its own chain.

    Raises:
        CheckpointError: it is damaged, or is not what its name says.
    """
    state = load_checkpoint(path / file.name, inside=path, limit=MAX_REPLAY_BYTES)
    names = entries(
        {
            "start": equal(file.start),
            "stop": equal(file.stop),
            "chain": equal(file.chain),
            "tensors": mapping(anything),
        }
    )
    try:
        require(state, names)
    except ValueError as error:
        raise misfit(path / file.name) from error
    tensors: dict[str, Tensor] = state["tensors"]
    length = file.stop - file.start
    if not tensors or any(not isinstance(x, Tensor) or len(x) != length for x in tensors.values()):
        raise misfit(path / file.name)
    return tensors


def remove_after(path: Path, added: int, chain: str) -> None:
    """Removes the files of transitions that a run which goes on from a mark has not made.

    Raises:
        OSError: the system refuses.
    """
    with open_folder(path, inside=path) as folder:
        for file in ReplayFile.all_in(path):
            if file.stop > added or (file.stop == added and file.chain != chain):
                remove(folder, file.name)


def rows_since(replay: Mapping[str, Any], start: int) -> dict[str, Tensor]:
    """The transitions of a buffer from number ``start`` on, the oldest first, as copies."""
    places = torch.arange(start, replay["added"]) % replay["capacity"]
    return {
        name: x.index_select(0, places.to(x.device)).cpu() for name, x in replay["tensors"].items()
    }


def chain_after(chain: str, tensors: Mapping[str, Tensor]) -> str:
    """The hash of a chain and the transitions that follow it."""
    digest = hashlib.blake2b(chain.encode(), digest_size=8)
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def misfit(path: Path) -> CheckpointError:
    """The error of a file that is not what its name says."""
    return CheckpointError(
        f"{path} is not the file of the replay buffer that its name says",
        "put the right file back, or train again",
    )
