"""Settings of every test: torch uses one thread, and the user's state is in a temporary folder."""

from collections.abc import Iterator

import pytest
import torch


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
