"""Signals: noted in the loop, raised elsewhere, restored at the end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pgtoolkit.training.stop import (
    STOP_SIGNALS,
    Interruption,
    StopSignals,
    handling,
    raise_interruption,
)


def send(signum: int) -> None:
    """Sends this process a signal, and lets its handler run."""
    os.kill(os.getpid(), signum)
    time.sleep(0.01)


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(signum: int) -> None:
    """After the first signal, the next one has its default action."""
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with StopSignals() as stop:
        assert not stop.requested() and stop.signum is None
        send(signum)
        assert stop.requested() and stop.signum == signum
        assert [signal.getsignal(each) for each in STOP_SIGNALS] == [signal.SIG_DFL] * 3
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_code_that_catches_everything_loses_no_signal() -> None:
    with StopSignals() as stop:
        try:
            send(signal.SIGINT)
        except BaseException:
            pytest.fail("the handler raised")
        assert stop.signum == signal.SIGINT


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_outside_the_loop_a_signal_is_an_exception(signum: int) -> None:
    with pytest.raises(Interruption) as caught, handling(raise_interruption):
        send(signum)
    assert caught.value.signum == signum and isinstance(caught.value, KeyboardInterrupt)


def test_an_ignored_signal_stays_ignored() -> None:
    """``nohup`` starts a process so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            send(signal.SIGHUP)
            assert not stop.requested()
            send(signal.SIGINT)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_sets_no_handlers() -> None:
    """Python refuses it; a training in a thread is not stopped by signals."""
    found = []

    def look() -> None:
        with StopSignals() as stop:
            found.append((signal.getsignal(signal.SIGTERM), stop.requested()))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [(before, False)]


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_second_signal_ends_the_process_at_once(signum: int) -> None:
    code = (
        "import os, time\nfrom pgtoolkit.training.stop import StopSignals\n"
        "with StopSignals() as stop:\n"
        f"    os.kill(os.getpid(), {signum:d}); time.sleep(0.01); assert stop.requested()\n"
        f"    print('noted', flush=True); os.kill(os.getpid(), {signum:d}); time.sleep(10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("noted\n", "", -signum)


def test_a_forked_child_ends_by_the_signal() -> None:
    """Its parent's handler would only note it, and a worker could not be stopped."""
    with StopSignals() as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert not stop.requested()
