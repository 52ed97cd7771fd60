"""The user's files and modules."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.user_code import import_file, import_named, place_of, require_not_imported


def test_a_file_is_imported_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("made = object()\n")
    assert import_file(file).made is import_file(file).made


def test_a_file_imports_another_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from inside a function, after the import."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_blocks.py").write_text("SIZE = 7\n")
    (tmp_path / "my_parts.py").write_text("WIDTH = 3\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from my_blocks import SIZE\n\n"
        "def width():\n    import my_parts\n    return my_parts.WIDTH\n"
    )
    module = import_file(file)
    assert module.SIZE == 7 and module.width() == 3


def test_a_file_that_is_imported_by_its_name_is_the_same_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes are those that the caller has. A file of this name elsewhere is another."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    file, other = tmp_path / "my_agent.py", tmp_path / "elsewhere" / "my_agent.py"
    other.parent.mkdir()
    for each in (file, other):
        each.write_text("class Mine:\n    pass\n")
    named = import_named("my_agent")
    assert import_file(file) is named
    assert import_file(other).Mine is not named.Mine
    monkeypatch.delitem(sys.modules, "my_agent")


def test_the_script_that_runs_is_the_main_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its file, and by its name after ``python -m``."""
    file, main = tmp_path / "script.py", ModuleType("__main__")
    file.write_text("raise RuntimeError\n")
    main.__file__ = str(file)
    main.__spec__ = type("Spec", (), {"name": "package.script"})()
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert import_file(file) is main and import_named("package.script") is main


def test_a_call_that_a_file_makes_when_it_is_imported_is_refused(tmp_path: Path) -> None:
    """The sentence names the file, and is over with the import."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from pgtoolkit.user_code import require_not_imported\nrequire_not_imported('train')\n"
    )
    with pytest.raises(RequestError, match=r"mine\.py calls train as soon as .*__main__"):
        import_file(file)
    require_not_imported("train")


@pytest.mark.parametrize(
    ("package", "spec", "place"),
    [("pkg", "pkg.part", "pkg.part"), ("pkg", None, "__main__"), (None, None, "")],
)
def test_the_place_of_a_module_is_what_another_process_can_import(
    package: str | None, spec: str | None, place: str
) -> None:
    """After ``python -m pkg.part`` the module is ``__main__``, which elsewhere is another one."""
    module = ModuleType("__main__")
    module.__package__ = package
    module.__spec__ = None if spec is None else ModuleSpec(spec, None)
    assert place_of(module) == place


def test_the_place_of_a_file_is_its_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("")
    assert place_of(import_file(file)) == str(file)


def test_a_module_that_does_not_exist_is_named() -> None:
    with pytest.raises(RequestError, match="no_such_package cannot be imported"):
        import_named("no_such_package")
