"""MuJoCo's warnings while models are loaded."""

import logging
from pathlib import Path

import pytest

from pgtoolkit.envs.registry.mujoco_warnings import mujoco_says_once, say_once
from pgtoolkit.envs.registry.registered import make_registered

mujoco = pytest.importorskip("mujoco")


@pytest.fixture(autouse=True)
def nothing_was_said() -> None:
    say_once.cache_clear()


def test_a_deprecated_attribute_of_gymnasiums_models_is_not_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two environments: nothing on the terminal, no file, one line of the log."""
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG, "pgtoolkit"):
        for _ in range(2):
            make_registered("HalfCheetah-v5", {}).close()
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert "settotalmass" in caplog.text


def test_what_is_not_deprecated_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with mujoco_says_once("HalfCheetah-v5"):
        say = mujoco.get_mju_user_warning()
        say("a mesh is degenerate")
        say("a mesh is degenerate")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "MuJoCo: a mesh is degenerate")
    ]


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "CartPole-v1", "none of that name"])
def test_mujoco_speaks_as_before_after_the_block(env_id: str) -> None:
    before = mujoco.get_mju_user_warning()
    with pytest.raises(KeyError), mujoco_says_once(env_id):
        raise KeyError
    assert mujoco.get_mju_user_warning() is before
