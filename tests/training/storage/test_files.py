"""Files of a run: what is no ordinary file is not opened, and what is written is whole or not."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pgtoolkit.training.storage.files import (
    RefusedFileError,
    add_name,
    excerpt,
    open_folder,
    read_regular,
    remove_unfinished,
    replace_file,
)

NAMES = re.compile("config")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.mkdir()


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    "make",
    [
        make_fifo,
        make_folder,
        link_to("/dev/zero"),
        link_to("/etc/passwd"),
        link_to("../outside"),
        link_to("link/../../outside"),
        lambda path: path.write_bytes(bytes(101)),
    ],
    ids=["fifo", "folder", "device", "system file", "above", "above by a link", "too large"],
)
def test_what_is_no_file_of_the_run_is_refused(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    """At once, and in one line; what is named is not opened."""
    run = tmp_path / "run"
    (run / "inner").mkdir(parents=True)
    (run / "link").symlink_to(run / "inner")
    (tmp_path / "outside").write_text("secret")
    make(run / "file")
    with pytest.raises(RefusedFileError) as caught:
        read_regular(run / "file", inside=run, limit=100)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_device_that_somebody_names_is_no_file_either(tmp_path: Path) -> None:
    """Without a folder to be inside, links are followed, and their ends are checked."""
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(RefusedFileError, match="device"):
        read_regular(tmp_path / "zero", inside=None, limit=100)
    assert read_regular(tmp_path / "link", inside=None, limit=3) == b"abc"


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    """The folder itself may be reached by a link too."""
    (tmp_path / "run").mkdir()
    (tmp_path / "latest").symlink_to("run")
    (tmp_path / "run" / "real").write_bytes(b"abc")
    (tmp_path / "run" / "file").symlink_to("real")
    latest = tmp_path / "latest"
    assert read_regular(latest / "file", inside=latest, limit=3) == b"abc"


def test_a_name_that_no_file_has_is_refused() -> None:
    """A null character, and a name that is too long."""
    with pytest.raises(RefusedFileError, match="not a path"):
        read_regular(Path("a\0b"), inside=None, limit=1)
    with pytest.raises(OSError, match="too long"):
        read_regular(Path("a" * 5000), inside=None, limit=1)


def test_a_file_is_replaced_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Neither at the file's own name, nor at that of an earlier temporary file."""
    victim, run = tmp_path / "victim", tmp_path / "run"
    run.mkdir()
    victim.write_text("precious")
    for name in ("config", "config.tmp"):
        (run / name).symlink_to(victim)
    replace_file(run / "config", [b"a", b"bc"], inside=run)
    assert victim.read_text() == "precious"
    assert (run / "config").read_bytes() == b"abc" and not (run / "config").is_symlink()
    assert {path.name for path in run.iterdir()} == {"config", "config.tmp"}


def test_nothing_is_written_through_a_folder_that_leads_out(tmp_path: Path) -> None:
    """A run's sub-folder that is a link to another place."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "policy").symlink_to(tmp_path / "outside")
    with pytest.raises(RefusedFileError, match="leads out of"):
        replace_file(tmp_path / "run" / "policy" / "best", [b"x"], inside=tmp_path / "run")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file is removed; a keyboard interrupt does the same."""
    path = tmp_path / "config"
    replace_file(path, [b"old"], inside=tmp_path)
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(descriptor: int, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(type(error)):
                replace_file(path, [b"new"], inside=tmp_path)
        assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_of_the_users_mask(tmp_path: Path) -> None:
    """As a file that is simply opened for writing: 0666 less the mask."""
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "config", [b""], inside=tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o640


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Its own names only, and ordinary files only."""
    token = "0123456789abcdef"
    (tmp_path / f".config.{token}.tmp").write_text("")
    (tmp_path / f".config.{token}f.tmp").write_text("")
    (tmp_path / f".other.{token}.tmp").write_text("")
    (tmp_path / "config.tmp").write_text("")
    (tmp_path / f".config.{token[::-1]}.tmp").symlink_to("config.tmp")
    before = {path.name for path in tmp_path.iterdir()}
    remove_unfinished(tmp_path, NAMES, inside=tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {f".config.{token}.tmp"}


def test_a_second_name_where_there_are_none_is_a_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without links to files gives the file its other name only."""
    (tmp_path / "a").write_text("x")
    with open_folder(tmp_path, inside=tmp_path) as folder:
        add_name(folder, "a", "b")
        assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refuse)
        add_name(folder, "a", "c")
    assert {path.name for path in tmp_path.iterdir()} == {"b", "c"}


def test_a_long_text_is_cut_and_kept_on_one_line() -> None:
    """Messages repeat what a file says; it may be long."""
    assert excerpt("a\nb") == "a b"
    assert len(excerpt("x" * 100_000)) < 400
