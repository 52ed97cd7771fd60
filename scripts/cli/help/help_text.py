"""The text of ``--help``: an example, the options that matter most, then the others."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

from pgtoolkit.scripts.cli.help.examples import EXAMPLES, Example
from pgtoolkit.scripts.cli.help.options import Option
from pgtoolkit.scripts.cli.help.tables import text_width


@final
class Group(NamedTuple):
    """Options under one heading."""

    title: str
    options: Sequence[Option]


def help_text(command: str, program: str, description: str, groups: Sequence[Group]) -> str:
    """The help of a command.

    Args:
        command: its name, with the agent behind it if it has one: ``train shac``.
        program: what starts it, such as ``pgtoolkit train shac``.
        description: what it does, in paragraphs.
        groups: its options. Those of its example's ``first`` are shown before, in that order.
    """
    name, _, agent = command.partition(" ")
    example = EXAMPLES.get(name, Example("", ()))
    # Without a certain agent the help of a command has one that works as it stands.
    line = example.line.format(agent="shac" if agent == "AGENT" else agent)
    width = text_width()
    parts = [
        *([f"example:\n  {line}"] if line else []),
        textwrap.fill(
            usage_line(program, [option for group in groups for option in group.options]),
            width,
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        ),
        paragraphs(description, width),
        *(group_text(group, width) for group in with_first(groups, example.first)),
    ]
    return "\n\n".join(part for part in parts if part)


def with_first(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """The groups, with the options of these names taken out into a group before them."""
    every = {option.name: option for group in groups for option in group.options}
    first = [every[name] for name in names if name in every]
    rest = [Group(g.title, [o for o in g.options if o.name not in names]) for g in groups]
    found = [Group("most used options", first), *rest] if first else rest
    return [group for group in found if group.options]


def usage_line(program: str, options: Iterable[Option]) -> str:
    """``usage: pgtoolkit plot RUN... --output PATH [options]``: what must be given."""
    given = [option for option in options if not option.flags or option.default is None]
    words = [
        f"{option.flags[0]} {option.value}"
        if option.flags
        else option.value
        if option.default is None
        else f"[{option.value}]"
        for option in sorted(given, key=lambda option: bool(option.flags))
    ]
    return " ".join(["usage:", program, *words, "[options]"])


def group_text(group: Group, width: int) -> str:
    """A heading with its options below."""
    return "\n".join([f"{group.title}:", *(option_text(o, width) for o in group.options)])


def option_text(option: Option, width: int) -> str:
    """The option and its value, and below them what it means and its default."""
    head = "  " + ", ".join(option.flags or (option.value,))
    value = option.value if option.flags else ""
    if value and len(head) + 1 + len(value) <= width:
        head, value = f"{head} {value}", ""
    lines = [head]
    if value:  # a long list of choices is broken behind its commas
        lines += _filled(value.replace(",", ", "), width)
        lines[1:] = [line.replace(", ", ",") for line in lines[1:]]
    return "\n".join([*lines, *_filled(f"{option.text}{default_note(option)}", width)])


def default_note(option: Option) -> str:
    """What is written behind an option's text: its default, or that it must be given."""
    if option.default is None:
        return " (required)"
    if option.default in ("None", "") and "default" in option.text.lower():
        return ""
    return f" (default: {option.default or 'none'})"


def paragraphs(text: str, width: int) -> str:
    """Text whose lines are filled to the width, paragraph by paragraph."""
    found = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(textwrap.fill(part, width, break_on_hyphens=False) for part in found)


def _filled(text: str, width: int) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
