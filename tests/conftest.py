"""Settings of every test: torch uses one thread."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """The tensors here are small: more threads only wait for each other, and for pytest-xdist."""
    torch.set_num_threads(1)
