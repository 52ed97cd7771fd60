"""What a process that is not the first one of a run tells."""

import logging
import warnings

import pytest

from pgtoolkit import parallel
from pgtoolkit.scripts.cli.display.following import hushed, view_here
from pgtoolkit.scripts.cli.display.run_views import ShownRun, SilentRun

LOG = logging.getLogger("pgtoolkit")


def test_nothing_is_told_while_the_run_lasts(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with hushed():
        print("an environment prints")
        LOG.warning("the first process says it too")
        warnings.warn("so does this", stacklevel=1)
    print("a script of the user's prints")
    LOG.warning("after it")
    assert capfd.readouterr().out == "a script of the user's prints\n"
    assert caplog.messages == ["after it"]


def test_the_first_process_has_the_view_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = SilentRun()
    assert view_here(silent) is silent and isinstance(view_here(None), ShownRun)
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    followed = view_here(ShownRun())
    assert isinstance(followed, SilentRun)
    with followed.output():
        print("an environment prints")
    assert capfd.readouterr().out == ""
