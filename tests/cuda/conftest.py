"""The device of these tests: a card; with ``--device``, the processor or a pretended card."""

import contextlib
import os
import sys
from collections.abc import Iterator

import pytest
import torch

NO_CARD = "torch sees no CUDA device; --device cpu or --device pretended runs this test without one"


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device of the test; the test is skipped where it needs a card and there is none."""
    name = request.config.getoption("--device")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_CARD)
    if name == "pretended":
        from tests.cuda.pretended_device import pretended_card

        context: contextlib.AbstractContextManager[torch.device] = pretended_card()
    else:
        context = contextlib.nullcontext(torch.device(name))
    with context as found:
        yield found


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


EXIT_STATUS = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leaves at once after a pretended run: torch's threads for that device cannot be joined."""
    if config.getoption("--device") == "pretended" and EXIT_STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[EXIT_STATUS])
