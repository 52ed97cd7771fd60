"""A tracker that fails does not end the run; what a folder says of trackers is read with care."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgtoolkit.training.trackers.base import (
    IDENTITY_FILE,
    Guarded,
    TrackedRun,
    read_identities,
    write_identities,
)


class Failing:
    """A tracker that counts its calls and fails in one of them."""

    def __init__(self, where: str) -> None:
        self.where, self.calls = where, [""]

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.where:
            raise ConnectionError("no network\nat all")

    def begin(self, run: TrackedRun) -> str:
        self._call(f"begin {run.identity}")
        return "abc"

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._call("log")

    def finish(self, *, failed: bool) -> None:
        self._call("finish")


def follow(tracker: Failing, folder: Path) -> None:
    guarded = Guarded("wandb", tracker)
    guarded.begin(TrackedRun(folder, {}, None, None))
    for step in range(3):
        guarded.log({"a": 1.0}, step)
    guarded.finish(failed=False)


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("begin None", ["begin None"]),
        ("log", ["begin None", "log"]),
        ("finish", ["begin None", "log", "log", "log", "finish"]),
    ],
)
def test_the_first_error_is_a_warning_and_the_last_call(
    where: str, calls: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Failing(where)
    with caplog.at_level(logging.WARNING):
        follow(tracker, tmp_path)
    assert tracker.calls[1:] == calls
    [record] = caplog.records
    assert (
        "wandb fails" in record.message and "ConnectionError: no network at all" in record.message
    )


def test_the_tracked_run_is_found_again(tmp_path: Path) -> None:
    """By its identity; those of other trackers stay."""
    write_identities(tmp_path, {"mlflow": "xyz"})
    follow(Failing("nowhere"), tmp_path)
    assert read_identities(tmp_path) == {"mlflow": "xyz", "wandb": "abc"}
    again = Failing("nowhere")
    follow(again, tmp_path)
    assert again.calls[1] == "begin abc"


def test_a_folder_that_cannot_be_written_costs_the_tracker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the identity a resumed run could not go on in the same tracked run."""
    tracker = Failing("nowhere")
    follow(tracker, tmp_path / "missing")
    assert tracker.calls[1:] == ["begin None"] and len(caplog.records) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '"abc"',
        json.dumps({"wandb": 3}),
        json.dumps({"wandb": ""}),
        json.dumps({"wandb": "../../x"}),
        json.dumps({"wandb": "a b"}),
        json.dumps({"wandb": "x" * 5000}),
        "[" * 4000,
    ],
)
def test_what_is_damaged_is_left_out(content: str, tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).write_text(content)
    assert read_identities(tmp_path) == {}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_identities(tmp_path, {"wandb": "abc"})
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / IDENTITY_FILE).symlink_to(tmp_path / IDENTITY_FILE)
    assert read_identities(folder) == {}
