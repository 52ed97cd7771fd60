"""A function in a process of its own: its text, or how the process ended."""

import os
import signal
import time

import pytest

from pgtoolkit.apart import call_apart


def test_the_text_comes_back_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    found: list[int] = []

    def function() -> str:
        found.append(1)
        print("not shown")
        return "text: \u00e9"

    assert call_apart(function) == ("text: \u00e9", "")
    assert found == [] and capfd.readouterr() == ("", "")


def leave() -> str:
    os._exit(3)


def crash() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"


def fail() -> str:
    raise ValueError("why")


def block() -> str:
    time.sleep(1000)
    return "never"


@pytest.mark.parametrize(
    ("function", "end"),
    [
        (leave, "its process ended with exit code 3"),
        (crash, "its process ended with SIGSEGV"),
        (fail, "its process ended with exit code 1"),
        (block, "no answer within 0.3 s"),
    ],
)
def test_an_end_is_told(function: object, end: str) -> None:
    assert callable(function)
    assert call_apart(function, 0.3 if function is block else 60.0) == (None, end)
