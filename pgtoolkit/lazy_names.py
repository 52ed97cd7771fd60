"""The public names of a package, imported when they are first used."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` for the names that its ``__init__.pyi`` lists.

    The stub is read when the first name is used, so that importing the package, as every command
    does, costs nothing. Star imports find ``__all__`` in the same way. A module of the package is
    no public name: ``from package import module`` asks for it here first, and must not read the
    stub, which takes a library that ``pgtoolkit list agents`` works without.

    Args:
        package: the package's ``__name__``.
        file: the package's ``__file__``.
    """

    @functools.cache
    def attach() -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
        import lazy_loader

        get_public, names, public = lazy_loader.attach_stub(package, file)
        return get_public, names, public

    def get(name: str) -> Any:
        if importlib.util.find_spec(f"{package}.{name}") is not None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        get_public, _, public = attach()
        return public if name == "__all__" else get_public(name)

    def names() -> list[str]:
        return attach()[1]()

    return get, names
