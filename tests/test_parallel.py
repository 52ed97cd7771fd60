"""Messages between the processes of a run; without torchrun a run is one process."""

import os
import signal
import socket
from multiprocessing import AuthenticationError, connection
from pathlib import Path
from typing import Any

import pytest
import torch

from pgtoolkit import parallel
from pgtoolkit.errors import LostProcessError, RequestError
from tests.processes import ends_of_processes, in_processes


def test_a_run_is_one_process_that_writes_and_speaks() -> None:
    with parallel.processes():
        assert (parallel.size(), parallel.rank(), parallel.speaks()) == (1, 0, True)
        assert parallel.exchange("mine", "value") == ["mine"]
        assert parallel.together(lambda: 3, "value") == [3]
        assert parallel.from_process(0, lambda: 4, "value") == 4
        assert parallel.any_of(False, True, purpose="flags") == (False, True)


def test_variables_that_lead_to_no_processes_are_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ``WORLD_SIZE`` that something else has left, without the rest of torchrun's variables."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="start them with torchrun"), parallel.processes():
        pass


def test_values_come_in_order_of_rank_whatever_their_sizes(tmp_path: Path) -> None:
    """Messages of one round, of two, and again of one, from all and from some of them."""
    sizes = [(0, 0, 0), (10, 3, 5), (10**6, 1, 0), (5000, 70_000, 200_000), (1, 1, 1)]

    def talk() -> Any:
        rank = parallel.rank()
        return [parallel.exchange(bytes([rank]) * each[rank], "bytes") for each in sizes]

    expected = [[bytes([k]) * each[k] for k in range(3)] for each in sizes]
    assert in_processes(3, talk, tmp_path) == [expected] * 3


def test_tensors_keep_their_bits(tmp_path: Path) -> None:
    given = torch.tensor([0.1, float("nan"), float("-inf"), -0.0], dtype=torch.float64)

    def talk() -> Any:
        return [x.view(torch.int64).tolist() for x in parallel.exchange(given, "tensor")]

    bits = given.view(torch.int64).tolist()
    assert in_processes(2, talk, tmp_path) == [[bits, bits]] * 2


def test_only_the_owner_calls_the_function_and_all_have_its_result(tmp_path: Path) -> None:
    def talk() -> Any:
        called: list[int] = []

        def make() -> str:
            called.append(parallel.rank())
            return "made"

        return parallel.from_process(1, make, "value"), called

    assert in_processes(2, talk, tmp_path) == [("made", []), ("made", [1])]


def test_an_error_of_one_process_is_raised_in_all_and_they_go_on(tmp_path: Path) -> None:
    """Types, messages and the order of rank are kept: process 1 is the first that fails."""

    def fail() -> int:
        if parallel.rank() > 0:
            raise RequestError(f"no environment in process {parallel.rank()}")
        return 1

    def talk() -> Any:
        found = []
        for call in (
            lambda: parallel.together(fail, "make"),
            lambda: parallel.from_process(2, fail, "make"),
        ):
            with pytest.raises(RequestError) as caught:
                call()
            found.append(str(caught.value))
        return found, parallel.exchange(parallel.rank(), "after")

    said = [f"no environment in process {k}" for k in (1, 2)]
    assert in_processes(3, talk, tmp_path) == [(said, [0, 1, 2])] * 3


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_arrives_as_its_text(tmp_path: Path) -> None:
    def fail() -> int:
        raise Unsendable(1, 2)

    def talk() -> Any:
        with pytest.raises(RuntimeError, match="Unsendable: 1 and 2"):
            parallel.from_process(1, fail, "make")
        return parallel.exchange(parallel.rank(), "after")

    assert in_processes(2, talk, tmp_path) == [[0, 1]] * 2


def test_a_stranger_at_the_door_is_not_one_of_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has not the key, and one that hangs up, before each of the processes."""

    def knock_first(address: tuple[str, int], authkey: bytes) -> Any:
        socket.create_connection(address).close()
        with pytest.raises((AuthenticationError, EOFError, ConnectionError)):
            connection_client(address, authkey=b"wrong")
        return connection_client(address, authkey=authkey)

    connection_client = connection.Client
    monkeypatch.setattr(connection, "Client", knock_first)
    found = in_processes(3, lambda: parallel.exchange(parallel.rank(), "value"), tmp_path)
    assert found == [[0, 1, 2]] * 3


def test_processes_that_went_different_ways_stop(tmp_path: Path) -> None:
    def talk() -> Any:
        with pytest.raises(LostProcessError) as caught:
            parallel.exchange(1, "step" if parallel.rank() else "save")
        return str(caught.value)

    words = "the processes of the run went different ways (process 0: save, process 1: step)"
    assert in_processes(2, talk, tmp_path) == [words] * 2


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_the_end_of_one_process_ends_the_others_and_one_of_them_speaks(
    dead: int, tmp_path: Path
) -> None:
    """Without torchrun process 0 keeps the store; where it is gone, process 1 speaks."""

    def talk() -> None:
        parallel.exchange(1, "begin")
        if parallel.rank() == dead:
            os.kill(os.getpid(), signal.SIGKILL)
        parallel.exchange(1, "step")

    ends = ends_of_processes(3, talk, tmp_path)
    assert ends[dead] is None
    left = [end for end in ends if end is not None]
    assert all("a process of the run has ended" in end.error for end in left)
    assert [end.speaks for end in left].count(True) == 1


def test_one_process_speaks_of_an_error_that_all_have(tmp_path: Path) -> None:
    def fail() -> None:
        parallel.exchange(1, "begin")
        raise RequestError("no such environment")

    assert [end is not None and end.speaks for end in ends_of_processes(4, fail, tmp_path)].count(
        True
    ) == 1


def test_the_process_that_fails_alone_speaks(tmp_path: Path) -> None:
    def talk() -> None:
        parallel.exchange(1, "begin")
        if parallel.rank() == 1:
            raise MemoryError("of this process alone")
        parallel.exchange(1, "step")

    ends = ends_of_processes(2, talk, tmp_path)
    assert [end is not None and end.speaks for end in ends] == [False, True]
