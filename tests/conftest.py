"""Settings of every test: one thread, a temporary folder for the user's state, usual signals."""

import signal
from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cuda", "cpu", "pretended"),
        default="cuda",
        help="where tests/cuda runs: a card, the processor (dry run), or a pretended card that "
        "finds mixed devices without one",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: "test_pretended_card" not in item.nodeid)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The tensors here are small: more threads only wait for each other, and for pytest-xdist."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands, those in other processes too, keep their key there and not in the real home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal() -> None:
    """Under ``nohup``, or in the background of a shell, a process starts with some ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
