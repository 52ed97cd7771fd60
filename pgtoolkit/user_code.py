"""Importing a user's Python files and modules, and messages about what fails in them."""

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from pgtoolkit.errors import RequestError, single_line

_IMPORTED: ContextVar[str] = ContextVar("imported", default="")
"""The file or module of the user's that is being imported; empty where none is."""


def import_file(path: Path) -> ModuleType:
    """Imports a file by its path. The second call returns the same module.

    A file that was imported by its name before is not run again, nor is the script that Python
    runs, whose module is ``__main__``: a second copy would have classes of its own, which are not
    those that the caller has. The file can import others of its folder, which comes first on
    ``sys.path``, as it does with ``python file.py``.

    Raises:
        RequestError: the import fails; names the line of the file.
    """
    imported = _imported_from(path)
    if imported is not None:
        return imported
    # Entered in sys.modules, because dataclasses and pickle look the module up there; under a
    # unique name, because another module may have the file's name.
    unique = f"pgtoolkit_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        with _importing(path.name):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[unique]
        raise RequestError(
            f"importing {path.name} failed: {describe_exception(error, str(path))}"
        ) from error
    return module


def _imported_from(path: Path) -> ModuleType | None:
    """The module that was made of a file, ``__main__`` first; None if there is none yet."""
    modules = [sys.modules.get("__main__"), *sys.modules.values()]
    for module in modules:
        # Not getattr, at which lazy modules import themselves.
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if not isinstance(file, str) or Path(file).name != path.name:
            continue
        if Path(file).resolve() == path:
            return module
    return None


def import_named(name: str) -> ModuleType:
    """Imports an installed module by its dotted name; that of ``python -m NAME`` is ``__main__``.

    Raises:
        RequestError: there is none, or the import fails.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name == name:
        return sys.modules["__main__"]
    try:
        with _importing(name):
            return importlib.import_module(name)
    except Exception as error:
        raise RequestError(
            f"the module {name} cannot be imported ({type(error).__name__}: {single_line(error)}): "
            "install its package, or name a file, path/to/file.py"
        ) from error


def place_of(module: ModuleType) -> str:
    """Where another process finds a module: ``/path/to/file.py``, or the dotted name in a package.

    With ``python -m NAME`` it is that name, not ``__main__``. Empty for an interactive session.
    """
    if module.__package__:
        return module.__name__ if module.__spec__ is None else module.__spec__.name
    file = Path(getattr(module, "__file__", None) or "")
    return str(file.resolve()) if file.suffix == ".py" and file.is_file() else ""


def require_not_imported(what: str) -> None:
    """Raises while a file or module of the user's is being imported.

    Args:
        what: the call that is made, ``pgtoolkit.train``.

    Raises:
        RequestError: names the file, and how it can be imported without the call.
    """
    if name := _IMPORTED.get():
        raise RequestError(
            f"{name} calls {what} as soon as it is imported, as every command does that reads a "
            f"run with code of that file: put the call under `if __name__ == '__main__':`"
        )


@contextlib.contextmanager
def _importing(name: str) -> Iterator[None]:
    token = _IMPORTED.set(name)
    try:
        yield
    finally:
        _IMPORTED.reset(token)


def describe_exception(error: BaseException, file: str) -> str:
    """``file.py, line 3: NameError: ...`` with the last line of that file in the traceback."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    if not file:
        return what
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"{file}, line {frames[-1].lineno}: {what}" if frames else f"{file}: {what}"
