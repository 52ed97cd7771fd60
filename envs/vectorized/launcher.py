"""A small process that starts the workers of a vector environment, and ends with this process.

A worker must be startable at any time, because one that died is replaced. To fork this process then
would copy the locks of threads that do not exist in the copy (TensorBoard has one); to start a new
interpreter would import torch again, which takes seconds, and environments that are objects or are
made by a local function cannot be sent there. So this process is forked once, when the vector
environment is made, into a *launcher*. It does nothing but fork workers, and kill them when this
process has ended, however it ended: its end of the socket is closed then.
"""

import contextlib
import gc
import os
import random
import signal
import socket
import struct
import sys
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NoReturn, final

import numpy as np
import torch

from pgtoolkit.envs.vectorized.causes import STOPS
from pgtoolkit.errors import RequestError

MESSAGE = struct.Struct("!cq")
"""A command and a process id; the reply is a number."""
REPLY = struct.Struct("!q")

START, STATUS, BURY, KILL = b"S", b"?", b"B", b"K"
ALIVE = -1_000_000
"""Reply to ``STATUS``: the process has not ended. Exit codes are 0 to 255, signals negative."""
NO_PROCESS = ALIVE - 1

EXIT_SECONDS = 2.0
"""Seconds that a worker whose socket is closed has to end by itself."""

Serve = Callable[[Connection], None]


@final
class Launcher:
    """Starts workers that run ``serve(connection)``, and says how they ended.

    Args:
        serve: runs in each worker, on its end of a connection.

    Raises:
        RequestError: the system cannot fork.
    """

    def __init__(self, serve: Serve) -> None:
        if not hasattr(os, "fork"):
            raise RequestError(
                "--vectorization async needs fork, which this system has not: use sync"
            )
        self._control, theirs = socket.socketpair()
        _flush()  # or both processes would print what is not printed yet
        self._pid = os.fork()
        if self._pid == 0:
            _run_and_exit(lambda: _launch(theirs, self._control, serve))
        theirs.close()
        # Also when the vector environment is collected, or at the end of the program.
        self._end = weakref.finalize(self, _end_launcher, self._control, self._pid, os.getpid())

    def __deepcopy__(self, memo: object) -> NoReturn:
        """Workers have one owner.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "environments in worker processes cannot be copied: make them with --vectorization sync"
        )

    def start(self) -> tuple[int, Connection]:
        """A new worker: its process id, and the connection to it.

        Raises:
            OSError: there can be no more processes, or the launcher has been killed.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [MESSAGE.pack(START, 0)], [theirs.fileno()])
        pid = self._reply()
        if pid <= 0:
            ours.close()
            raise OSError(-pid, os.strerror(-pid))
        return pid, Connection(ours.detach())

    def status(self, pid: int) -> int | None:
        """The exit code of a worker, or minus its signal; None while it runs."""
        found = self._ask(STATUS, pid)
        return None if found == ALIVE else found

    def bury(self, pid: int, *, kill: bool = False) -> int | None:
        """Waits for a worker that ends, and kills one that does not; its exit code or -signal.

        None if the launcher itself is gone.
        """
        try:
            return self._ask(KILL if kill else BURY, pid)
        except OSError:
            return None

    def close(self) -> None:
        """Ends the launcher, which kills the workers that are left."""
        self._end()

    def _ask(self, command: bytes, pid: int) -> int:
        self._control.sendall(MESSAGE.pack(command, pid))
        return self._reply()

    def _reply(self) -> int:
        reply = self._control.recv(REPLY.size, socket.MSG_WAITALL)
        if len(reply) < REPLY.size:
            raise OSError("the process that starts the workers is gone")
        number: int = REPLY.unpack(reply)[0]
        return number


def _end_launcher(control: socket.socket, pid: int, owner: int) -> None:
    """Ends a launcher, unless this is a copy of its owner in a process that was forked."""
    if os.getpid() != owner:
        return
    hang_up(control.fileno())
    control.close()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def hang_up(file: int) -> None:
    """Ends a socket's connection, also where a process that was forked later has a copy of it.

    The launcher of another vector environment is such a process.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(file)) as copied:
        copied.shutdown(socket.SHUT_RDWR)


def _launch(control: socket.socket, inherited: socket.socket, serve: Serve) -> None:
    """The launcher's life: answers commands until the other end is closed."""
    inherited.close()
    for number in STOPS:  # the process that owns the environments decides when they end
        signal.signal(number, _ignore)
    gc.freeze()  # objects of the other process must not be collected here: that may close them
    workers: set[int] = set()
    started = 0
    while True:
        message, files, _, _ = socket.recv_fds(control, MESSAGE.size, 1)
        if len(message) < MESSAGE.size:
            break
        command, pid = MESSAGE.unpack(message)
        if command == START:
            started += 1
            reply = _fork_worker(control, files[0], serve, started)
            workers |= {reply} if reply > 0 else set()
        else:
            reply = _end_of(pid, command) if pid in workers else NO_PROCESS
            workers -= set() if reply == ALIVE else {pid}
        control.sendall(REPLY.pack(reply))
    for pid in workers:
        _end_of(pid, KILL)


def _fork_worker(control: socket.socket, file: int, serve: Serve, number: int) -> int:
    """Forks a worker on its end of a connection; its process id, or minus the error's number."""
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        control.close()
        _run_and_exit(lambda: _work(Connection(file), serve, number))
    os.close(file)
    return pid


def _work(connection: Connection, serve: Serve, number: int) -> None:
    # Threads of OpenMP do not survive a fork; global generators would be the same in all workers.
    torch.set_num_threads(1)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    serve(connection)


def _end_of(pid: int, command: bytes) -> int:
    """A worker's exit code or -signal, after the wait or the kill that the command asks for."""
    deadline = time.monotonic() + (EXIT_SECONDS if command == BURY else 0.0)
    if command == KILL:
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if command == STATUS:
            return ALIVE
        if time.monotonic() > deadline:
            return _end_of(pid, KILL)
        time.sleep(0.002)


def _run_and_exit(function: Callable[[], None]) -> NoReturn:
    """Runs the function in a forked process, and ends it without what the other one does at exit.

    An error cannot be reported from here: the other side sees that the connection is closed.
    """
    try:
        function()
        _flush()
    finally:
        os._exit(0)


def _ignore(*_: object) -> None:
    """Does nothing. With ``SIG_IGN``, programs that an environment starts would ignore it too."""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or there is none
            stream.flush()
