"""Options as they are read from a dataclass."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from pgtoolkit.scripts.cli.help.options import Option, field_texts, options_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    count: int = 3
    """A count
    on two lines."""
    ratio: float = 0.5
    """Of the base."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Base):
    place: Annotated[str, tyro.conf.Positional]
    """Where."""
    many: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Which."""
    limit: Annotated[int | None, "an extra"] = None
    sizes: tuple[int, ...] = (64, 64)
    pair: tuple[float, float] = (0.9, 0.99)
    mode: Literal["auto", "none"] = "auto"
    modes: tuple[Literal["one", "two"], ...] = ()
    file: Path | None = None
    names: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    fast: bool = False
    ratio: float = 0.7
    """Of the settings."""


OPTIONS = {option.name: option for option in options_of(Settings)}


@pytest.mark.parametrize(
    ("name", "flags", "value", "default"),
    [
        ("place", (), "PLACE", None),
        ("many", (), "RUN...", None),
        ("count", ("--count",), "INT", "3"),
        ("ratio", ("--ratio",), "NUMBER", "0.7"),
        ("limit", ("--limit",), "INT or None", "None"),
        ("sizes", ("--sizes",), "INT ...", "64 64"),
        ("pair", ("--pair",), "NUMBER NUMBER", "0.9 0.99"),
        ("mode", ("--mode",), "{auto,none}", "auto"),
        ("modes", ("--modes",), "{one,two} ...", ""),
        ("file", ("--file",), "PATH or None", "None"),
        ("names", ("--names",), "TEXT", ""),
        ("fast", ("--fast", "--no-fast"), "", "False"),
    ],
)
def test_every_kind_of_field(
    name: str, flags: tuple[str, ...], value: str, default: str | None
) -> None:
    option: Option = OPTIONS[name]
    assert (option.flags, option.value, option.default) == (flags, value, default)


def test_choices_and_paths_can_be_completed() -> None:
    assert OPTIONS["mode"].choices == ("auto", "none")
    assert OPTIONS["modes"].choices == ("one", "two")
    assert OPTIONS["limit"].choices == ()
    assert [name for name, option in OPTIONS.items() if option.is_path] == ["file"]


def test_texts_are_those_of_the_most_special_class() -> None:
    """On one line; a class that is made at run time has none."""
    texts = field_texts(Settings)
    assert texts["count"] == "A count on two lines." and texts["ratio"] == "Of the settings."
    assert "limit" not in texts
    assert field_texts(dataclasses.make_dataclass("Made", [("x", int)])) == {}
