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
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, final

from pgtoolkit.errors import LostProcessError, RequestError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")

PURPOSE_BYTES = 24
"""A message begins with what the process is about to do."""
LENGTHS = struct.Struct("q")
FAREWELL = b""
"""What process 0 sends to the others when an exception has ended it."""


@final
class _Group:
    """The processes that have joined, as this one sees them."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self.store: Any = None
        self.wires: list[Connection] = []
        """To each other process in process 0, to process 0 in the others."""
        self.has_farewell = False
        self.speaks, self.seconds = True, 0.0


_group = _Group()


def size() -> int:
    """The number of processes."""
    return _group.size


def rank() -> int:
    """The number of this process, from 0; process 0 writes logs and checkpoints."""
    return _group.rank


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _group.size > 1 else 0


def seconds() -> float:
    """Seconds that this process has spent on exchanges so far: with sending, and with waiting."""
    return _group.seconds


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
        _say_farewell()
        raise
    finally:
        _leave()


def _join(count: int) -> None:
    """Meets the other processes.

    Raises:
        RequestError: they do not come together.
    """
    from multiprocessing import AuthenticationError

    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, number, count = next(rendezvous("env://"))
        # torchrun may keep the store over restarts: old addresses must not be found in it.
        _group.store = cast(Any, dist).PrefixStore(f"restart {restarts()}", store)
        _group.wires = _wires(number, count)
    except (RuntimeError, ValueError, OSError, AuthenticationError) as error:
        raise RequestError(
            f"the {count} processes of WORLD_SIZE do not come together ({error}): start them with "
            "torchrun, or take the variable out of the environment"
        ) from error
    _group.rank, _group.size, _group.speaks = number, count, True


def _wires(number: int, count: int) -> "list[Connection]":
    """Connects each process with process 0, whose machine is that of MASTER_ADDR.

    These are sockets of the standard library: the collectives of torch take several times as long
    for a small message, because they hand it from thread to thread.
    """
    import secrets
    from multiprocessing import AuthenticationError
    from multiprocessing.connection import Client, Listener

    host = os.environ["MASTER_ADDR"]
    if number > 0:
        port, key = _group.store.get("address").split()
        wire = Client((host, int(port)), authkey=key)
        wire.send_bytes(LENGTHS.pack(number))
        return [_without_delay(wire)]
    key = secrets.token_hex().encode()
    found: dict[int, Connection] = {}
    # Others than those of the job do not reach, or do not open, the door.
    own = host if host in ("localhost", "127.0.0.1") else ""
    with Listener((own, 0), backlog=count, authkey=key) as listener:
        _group.store.set("address", f"{listener.address[1]} ".encode() + key)
        while len(found) < count - 1:
            try:
                wire = listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                continue  # not one of them
            found[LENGTHS.unpack(wire.recv_bytes())[0]] = _without_delay(wire)
    return [found[rank] for rank in sorted(found)]


def _without_delay(wire: "Connection") -> "Connection":
    """The connection, which sends the end of a long message at once."""
    import socket

    with socket.socket(fileno=os.dup(wire.fileno())) as same:
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return wire


def _leave() -> None:
    for wire in _group.wires:
        wire.close()
    _group.rank, _group.size, _group.wires, _group.store = 0, 1, [], None
    _group.has_farewell = False


def _is_first_to_end() -> bool:
    """Whether no process before this one was ended by an exception."""
    try:
        return bool(_group.store.add("ended", 1) == 1)
    except RuntimeError:
        # Without torchrun process 0 keeps the store, and it is gone: by an exception, of which it
        # has told, or killed. Process 1 tells of that.
        (wire,) = _group.wires
        with contextlib.suppress(EOFError, OSError):
            while not _group.has_farewell and wire.poll():
                _group.has_farewell = wire.recv_bytes() == FAREWELL
        return _group.rank == 1 and not _group.has_farewell


def _say_farewell() -> None:
    for wire in _group.wires if _group.rank == 0 else []:
        with contextlib.suppress(OSError):
            wire.send_bytes(FAREWELL)


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
            return cls(error=as_sent(error))

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def as_sent(error: Exception) -> Exception:
    """The exception, or one with its text where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


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
    begun = time.perf_counter()
    messages = _exchange_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), purpose.encode())
    found = [value if k == _group.rank else pickle.loads(x) for k, x in enumerate(messages)]
    _group.seconds += time.perf_counter() - begun
    return found


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
    """The messages of all processes, in order of rank: process 0 collects and passes them on."""
    own = purpose[:PURPOSE_BYTES].ljust(PURPOSE_BYTES) + message
    with _others_there(purpose):
        if _group.rank == 0:
            found = [own, *(wire.recv_bytes() for wire in _group.wires)]
            joined = b"".join(x for each in found for x in (LENGTHS.pack(len(each)), each))
            for wire in _group.wires:
                wire.send_bytes(joined)
        else:
            (wire,) = _group.wires
            wire.send_bytes(own)
            joined = wire.recv_bytes()
            if joined == FAREWELL:
                _group.has_farewell = True
                raise EOFError
            found = _parted(joined)
    _require_same([each[:PURPOSE_BYTES].rstrip() for each in found])
    return [each[PURPOSE_BYTES:] for each in found]


def _parted(joined: bytes) -> list[bytes]:
    """The messages that process 0 has put together."""
    found, place = [], 0
    while place < len(joined):
        begin = place + LENGTHS.size
        place = begin + LENGTHS.unpack_from(joined, place)[0]
        found.append(joined[begin:place])
    return found


@contextlib.contextmanager
def _others_there(purpose: bytes) -> Iterator[None]:
    """A block that communicates with the other processes.

    Raises:
        LostProcessError: it cannot.
    """
    try:
        yield
    except (EOFError, OSError) as error:
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
