"""Chromium, and two small runs to look at."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from pgtoolkit.scripts.cli import main as cli

NAMES = ("chromium", "chromium-browser", "google-chrome")

START_MS = 120_000
"""Time limit for Chromium's start, which takes a second or two on an idle machine."""

SETTINGS = ["--env", "pgtoolkit/LQG-v0", "--total-steps", "960", "--num-envs", "16"]
SETTINGS += ["--n-steps", "10", "--hidden", "8", "--diagnostics-interval", "1"]
SETTINGS += ["--eval-interval", "320", "--eval-episodes", "4", "--compile", "never", "--quiet"]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Its path. Fixtures that cost time depend on it, so that they are not made in vain."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser for a file of tests: while one is open, its thread cannot use asyncio."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, timeout=START_MS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def runs(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of ``shac`` and one of ``reppo``.

    The critic of the latter points away from LQG's exact gradient after so few steps, so that the
    diagnosis has a finding.
    """
    folder = tmp_path_factory.mktemp("runs")
    for agent in ("shac", "reppo"):
        arguments = ["train", agent, *SETTINGS, "--run-dir", str(folder / agent)]
        with pytest.raises(SystemExit) as caught:
            cli.run_command(cli.run_arguments, arguments)
        assert caught.value.code == 0
    return folder
