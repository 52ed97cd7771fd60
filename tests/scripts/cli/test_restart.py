"""A training that torchrun starts again goes on with its own run, and with no other."""

from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import train
from pgtoolkit.scripts.cli.experiment import parse_settings
from pgtoolkit.scripts.cli.restart import goes_on, require_folder_to_restart

FLAGS = ["--env", "CartPole-v1", "--total-steps", "64", "--eval-interval", "0", "--hidden", "4"]


def test_only_a_restart_with_the_same_settings_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "run")
    settings = parse_settings("a2c", FLAGS, command="train")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not goes_on(folder, settings)  # it died before its first checkpoint
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    train.train_settings(settings, folder)
    assert not goes_on(folder, settings)  # a first start, which the command then refuses
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert goes_on(folder, settings)
    other = parse_settings("a2c", [*FLAGS, "--seed", "1"], command="train")
    with pytest.raises(RequestError, match=r"run of other settings \(seed\)"):
        goes_on(folder, other)


def test_a_folder_is_needed_where_there_may_be_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    require_folder_to_restart(None)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    require_folder_to_restart("run")
    with pytest.raises(RequestError, match="give --run-dir DIR"):
        require_folder_to_restart(None)
