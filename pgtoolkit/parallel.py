"""The processes of a run, which torchrun starts. This is the only module that knows how many.

All of them run the same program on the same numbers. What can be divided among them is: each steps
its share of the ordinary environments, and sends the others what came of it. So every process has
all observations, rewards and decisions and learns the same from them, and no result depends on the
number of processes. Process 0 alone writes files and speaks.

:func:`exchange` alone communicates. All processes call it in the same order, and it compares what
they are about to do: processes that went different ways stop with a sentence instead of waiting for
each other.
"""

import contextlib
import dataclasses
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, final

from pgtoolkit.errors import LostProcessError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

HEAD = struct.Struct("q24s")
"""What a message begins with: the bytes after it, and what the process is about to do."""
SMALLEST, LARGEST = 2**10, 2**17
"""Bytes of a message that goes in one round; the rest of a longer one takes another, after which
twice as many go in one, up to the largest."""


@final
class _Group:
    """The processes that have joined, as this one sees them."""

    def __init__(self) -> None:
        self.rank, self.size, self.capacity = 0, 1, SMALLEST
        self.store: Any = None
        self.speaks = True


_group = _Group()


def size() -> int:
    """The number of processes."""
    return _group.size


def rank() -> int:
    """The number of this process, from 0; process 0 writes logs and checkpoints."""
    return _group.rank


def speaks() -> bool:
    """Whether this process tells what ended the run: the first one that an exception ended."""
    return _group.speaks


def restarts() -> int:
    """How often torchrun has started the processes again after one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def may_restart() -> bool:
    """Whether torchrun starts the processes again after one of them failed."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """A block in which the processes that torchrun started are one run; else it is one process.

    Blocks may be inside each other: the outermost one joins the processes.

    Raises:
        RequestError: the processes do not come together.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or _group.size > 1:
        yield
        return
    _join(count)
    try:
        yield
    except BaseException:
        _group.speaks = _is_first_to_end()
        raise
    finally:
        _leave()


def _join(count: int) -> None:
    """Meets the other processes.

    Raises:
        RequestError: they do not come together.
    """
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, number, count = next(rendezvous("env://"))
        # torchrun may keep the store over restarts: old addresses must not be found in it.
        _group.store = cast(Any, dist).PrefixStore(f"restart {restarts()}", store)
        dist.init_process_group("gloo", store=_group.store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        raise RequestError(
            f"the {count} processes of WORLD_SIZE do not come together ({error}): start them with "
            "torchrun, or take the variable out of the environment"
        ) from error
    _group.rank, _group.size, _group.speaks = number, count, True


def _leave() -> None:
    import torch.distributed as dist

    _group.rank, _group.size, _group.capacity, _group.store = 0, 1, SMALLEST, None
    with contextlib.suppress(RuntimeError):  # the others may be gone
        dist.destroy_process_group()


def _is_first_to_end() -> bool:
    """Whether no process before this one was ended by an exception."""
    try:
        return bool(_group.store.add("ended", 1) == 1)
    except RuntimeError:  # without torchrun process 0 keeps the store, and it is gone
        return _group.rank == 1


@final
@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a function returned in one process, or the exception that it raised."""

    value: Any = None
    error: Exception | None = None

    @classmethod
    def of(cls, function: Callable[[], Any]) -> Self:
        try:
            return cls(function())
        except Exception as error:
            return cls(error=error)

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def exchange(value: T, purpose: str) -> list[T]:
    """The values of all processes, in order of rank.

    Args:
        value: whatever can be pickled.
        purpose: what it is, of at most 24 characters; the same in all processes.

    Raises:
        LostProcessError: another process has ended, or is about to do something else.
    """
    if _group.size == 1:
        return [value]
    found = _exchange_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), purpose.encode())
    return [value if k == _group.rank else pickle.loads(x) for k, x in enumerate(found)]


def together(function: Callable[[], T], purpose: str) -> list[T]:
    """What the function returns in each process.

    Raises:
        Exception: what it raised in one of them, in all of them.
        LostProcessError: as :func:`exchange`.
    """
    if _group.size == 1:
        return [function()]
    return [outcome.get() for outcome in exchange(_Outcome.of(function), purpose)]


def from_process(owner: int, function: Callable[[], T], purpose: str) -> T:
    """What the function returns in process ``owner``, the only one that calls it.

    Raises:
        Exception: what it raised there, in all processes.
        LostProcessError: as :func:`exchange`.
    """
    if _group.size == 1:
        return function()
    outcome = _Outcome.of(function) if _group.rank == owner else _Outcome()
    return cast(T, exchange(outcome, purpose)[owner].get())


def any_of(*flags: bool, purpose: str) -> tuple[bool, ...]:
    """Whether each flag is set in one of the processes: what may differ, such as by the clock."""
    return tuple(map(any, zip(*exchange(flags, purpose), strict=True)))


def _exchange_bytes(message: bytes, purpose: bytes) -> list[bytes]:
    """The messages of all processes, in order of rank."""
    import torch
    import torch.distributed as dist

    head, room = HEAD.pack(len(message), purpose), _group.capacity - HEAD.size
    rounds = torch.zeros(_group.size, _group.capacity, dtype=torch.uint8)
    with _others_there(purpose):
        dist.all_gather(list(rounds.unbind()), _tensor(head + message[:room], _group.capacity))
    first = [row.numpy().tobytes() for row in rounds]
    lengths, purposes = zip(*map(HEAD.unpack, (x[: HEAD.size] for x in first)), strict=True)
    _require_same([text.rstrip(b"\0") for text in purposes])
    found = [x[HEAD.size :][:length] for x, length in zip(first, lengths, strict=True)]
    for owner, length in enumerate(lengths):
        if length > room:
            rest = _tensor(message[room:] if owner == _group.rank else b"", length - room)
            with _others_there(purpose):
                dist.broadcast(rest, owner)
            found[owner] += rest.numpy().tobytes()
    if max(lengths) > room:
        _group.capacity = min(2 * _group.capacity, LARGEST)
    return found


@contextlib.contextmanager
def _others_there(purpose: bytes) -> Iterator[None]:
    """A block in which torch communicates with the other processes.

    Raises:
        LostProcessError: it cannot.
    """
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"a process of the run has ended: process {_group.rank} of {_group.size} waited for it "
            f"(at: {purpose.decode()})"
        ) from error


def _require_same(purposes: list[bytes]) -> None:
    """Compares what the processes are about to do.

    Raises:
        LostProcessError: it is not the same.
    """
    if len(set(purposes)) > 1:
        each = ", ".join(f"process {k}: {purpose.decode()}" for k, purpose in enumerate(purposes))
        raise LostProcessError(f"the processes of the run went different ways ({each})")


def _tensor(content: bytes, length: int) -> "Tensor":
    """Bytes as a tensor, with zeros up to the length."""
    import torch

    return torch.frombuffer(bytearray(content.ljust(length, b"\0")), dtype=torch.uint8)
