"""Command-line arguments from dataclasses; errors are reported on one line."""

import contextlib
import dataclasses
import inspect
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.help.examples import EXAMPLES, Example
from pgtoolkit.scripts.cli.help.help_text import Group, help_text
from pgtoolkit.scripts.cli.help.options import options_of
from pgtoolkit.scripts.cli.registry import COMMANDS
from pgtoolkit.scripts.cli.suggestions import did_you_mean
from pgtoolkit.setting_types import is_whole
from pgtoolkit.training.storage.config_file import read_config

T = TypeVar("T")

FRAME_CHARACTERS = "╭╮╰╯│─"
"""Characters of the frame that tyro draws around an error."""

RULE = re.compile(r"[│ ]*(─{2,}|-{4,})[│ ]*")
"""A line across the frame. Where the terminal's encoding is ASCII, these are all of the frame, and
the first one stands below the title."""


NUMBER_WORDS = ("-inf", "-infinity", "-nan")
"""Numbers that look like an option with one hyphen."""

WHOLE_NUMBER = re.compile(r"\d{1,18}(\.\d{0,18})?([eE]\+?\d{1,2})?")
"""A number that may be whole although it has a point or an exponent."""

MAX_JSON_DEPTH = 20
"""Lists and objects inside each other; no argument of an environment has so many."""


def parse(cls: type[T], arguments: Sequence[str], *, command: str) -> T:
    """Fills a dataclass from command-line flags; ``--help`` prints its options and exits 0.

    Args:
        cls: a dataclass.
        arguments: the command line after the command's name.
        command: the command's name, for usage and errors.

    Raises:
        RequestError: the arguments do not fit the dataclass; one line with tyro's explanation.
    """
    if asks_for_help(arguments):
        print(command_help(command, cls))
        raise SystemExit(0)
    require_flags(arguments, field_names(cls), command=command)
    with _errors_on_one_line(command):
        return tyro.cli(cls, args=whole_numbers(cls, arguments), prog=program_name(command))


def field_types(cls: Any) -> dict[str, Any]:
    """A dataclass's fields and their types; those of a field that is a dataclass in its place.

    Args:
        cls: the dataclass, or it in ``Annotated``.
    """
    fields = get_type_hints(get_args(cls)[0] if get_origin(cls) is Annotated else cls)
    found: dict[str, Any] = {}
    for name, kind in fields.items():
        found |= field_types(kind) if dataclasses.is_dataclass(kind) else {name: kind}
    return found


def field_names(cls: Any) -> list[str]:
    """The names of :func:`field_types`."""
    return list(field_types(cls))


def whole_numbers(cls: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments with whole numbers in digits, where they were written as ``1e6`` or ``3.0``.

    Args:
        cls: the dataclass that they are to fill.
        arguments: ``--name value`` and ``--name=value``.
    """
    flags = {flag_name(name) for name, kind in field_types(cls).items() if is_whole(kind)}
    found: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if equals and flag in flags:
            found.append(f"{flag}={in_digits(value)}")
        else:
            found.append(in_digits(argument) if found and found[-1] in flags else argument)
    return found


def in_digits(text: str) -> str:
    """``1e6`` as ``1000000``; a text that is no whole number, or is so already, as it is."""
    if not WHOLE_NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    return str(int(number)) if number == number.to_integral_value() else text


def require_flags(arguments: Sequence[str], names: Sequence[str], *, command: str) -> None:
    """Checks the names of the flags of a command line.

    Args:
        arguments: the command line after the command's name.
        names: of the command's options.
        command: the command's name.

    Raises:
        RequestError: there is no such option; names those that are close.
    """
    program = program_name(command)
    most_used = EXAMPLES.get(command.split()[0], Example("", ())).first
    ordered = [*(name for name in most_used if name in names), *names]
    for word in (argument.split("=")[0] for argument in arguments if is_flag(argument)):
        name = word.lstrip("-").replace("-", "_")
        known = name in names or name.removeprefix("no_") in names
        if known and word.startswith("--"):
            continue
        meant = [name] if known else dict.fromkeys(ordered)
        hint = did_you_mean(name, meant, flag_name)
        raise RequestError(f"`{program}` has no option {word}: {hint}`{program} --help` shows all")


def is_flag(argument: str) -> bool:
    """Whether an argument begins as an option does: with two hyphens, or with one and a word.

    ``-lr`` and ``-n=3`` do; ``-inf`` and ``-1e3`` are numbers, and ``-x + y`` is a text.
    """
    return argument.startswith("--") or (
        re.fullmatch(r"-[a-z][\w-]*(=.*)?", argument, re.IGNORECASE | re.DOTALL) is not None
        and argument.lower() not in NUMBER_WORDS
    )


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether one of the arguments is ``-h`` or ``--help``."""
    return "-h" in arguments or "--help" in arguments


def command_help(command: str, cls: type[Any]) -> str:
    """The text of ``--help`` of a command whose arguments are a dataclass.

    Args:
        command: the command's name, for example and usage.
        cls: the dataclass; its docstring says what the command does. A field that is a dataclass
            itself is a group of options.
    """
    kind = get_args(cls)[0] if get_origin(cls) is Annotated else cls
    fields = get_type_hints(kind)
    inner = {name: part for name, part in fields.items() if dataclasses.is_dataclass(part)}
    own = [option for option in options_of(kind) if option.name not in inner]
    groups = [Group("further options", own)]
    groups += [Group(f"{name} options", options_of(part)) for name, part in inner.items()]
    return help_text(command, program_name(command), inspect.getdoc(kind) or "", groups)


def parse_known(cls: type[T], arguments: Sequence[str], *, command: str) -> tuple[T, list[str]]:
    """Fills a dataclass from those flags that it has; returns it and the other arguments.

    Args:
        cls: a dataclass.
        arguments: the command line after the command's name.
        command: the command's name, for errors.

    Raises:
        RequestError: a value does not fit the dataclass.
    """
    with _errors_on_one_line(command):
        args = whole_numbers(cls, arguments)
        return tyro.cli(cls, args=args, return_unknown_args=True, add_help=False)


@contextlib.contextmanager
def _errors_on_one_line(command: str) -> Iterator[None]:
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            yield
    except SystemExit as error:
        if not error.code:
            raise
        raise RequestError(
            f"{_first_error(output.getvalue())} (see {program_name(command)} --help)"
        ) from error


def program_name(command: str) -> str:
    """The command line that starts it: ``pgtoolkit train``, or ``python scripts/reproduce.py``."""
    is_subcommand = command.split()[0] in COMMANDS
    return f"pgtoolkit {command}" if is_subcommand else f"python scripts/{command}.py"


def require_options(options: Any, conditions: Mapping[str, tuple[bool, str]]) -> None:
    """Checks a command's options.

    Args:
        options: the dataclass of arguments.
        conditions: field name to whether its value is valid, and what it must be, in words.

    Raises:
        RequestError: a value is not valid; names the flag, the condition and the value.
    """
    for name, (holds, must_be) in conditions.items():
        if not holds:
            value = getattr(options, name)
            given = (join_names(value) or "none") if isinstance(value, tuple) else value
            raise RequestError(f"{flag_name(name)} must be {must_be}, not {given}")


def flag_name(field: str) -> str:
    """``env_kwargs`` to ``--env-kwargs``."""
    return f"--{field.replace('_', '-')}"


def _first_error(report: str) -> str:
    """The first paragraph of tyro's framed error report."""
    lines = report.splitlines()[1:]  # without the title
    begun = itertools.dropwhile(RULE.fullmatch, lines)
    paragraph = itertools.takewhile(lambda line: not RULE.fullmatch(line), begun)
    words = (line.strip(f" {FRAME_CHARACTERS}") for line in paragraph)
    text = " ".join(line for line in words if line)
    # Errors from a dataclass's own checks: drop tyro's prefix with the field's position.
    text = re.sub(r"^Error parsing (agent|loop|run|\w+Arguments): ", "", text).replace("  ", " ")
    return plain_words(text)


MISSING_ARGUMENT = re.compile(r"Missing from (.*?): [A-Z]+ (.*?)\.? \(required\)")
"""Tyro's message on an argument that is no option, with the command and the argument's help."""

PLAIN_WORDS = (
    (r"Missing from .*?: (--[\w-]+)\b.*", r"\1 is missing"),
    (
        r"Error parsing (--[\w-]+): invalid literal for int\(\) with base 10: (.*)",
        r"\1 must be a whole number, not \2",
    ),
    (
        r"Error parsing (--[\w-]+): could not convert string to float: (.*)",
        r"\1 must be a number, not \2",
    ),
    (
        r"Error parsing (--[\w-]+): Could not find valid parse for arguments: \['(.*,.*)'\]",
        r"\1 takes values with spaces between them, not commas: not \2",
    ),
    (
        r"Error parsing (--[\w-]+): Could not find valid parse for arguments: \['(.*)'\]",
        r"\1 cannot be \2",
    ),
    (
        r"invalid choice '(.*)' for argument '(--[\w-]+)'\. Expected one of \((.*?),?\)\.",
        r"\2 must be one of \3, not '\1'",
    ),
    (r"Unrecognized options: (.*)", r"there is no option or place for \1"),
)
"""Patterns of tyro's messages, with what is said in their place."""


def plain_words(text: str) -> str:
    """A message of tyro in words of a user; another one as it is."""
    if lacking := MISSING_ARGUMENT.match(text):
        return f"{lacking[1]} needs {lacking[2][0].lower()}{lacking[2][1:]}"
    for pattern, words in PLAIN_WORDS:
        if re.fullmatch(pattern, text):
            return re.sub(pattern, words, text)
    return text


def parse_json_object(text: str, flag: str) -> dict[str, Any]:
    """Parses the JSON object given to a flag.

    Raises:
        RequestError: the text is not a JSON object, is nested too deeply, gives a name twice, or
            has NaN in it; the message shows an example of one.
    """
    example = f"write it as {flag} '{{\"name\": 1.0}}'"
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_nan)
        json.dumps(value, ensure_ascii=False).encode()  # no surrogates, which YAML cannot hold
    except RecursionError as error:
        raise RequestError(f"{flag} is nested too deeply: {example}") from error
    except ValueError as error:
        raise RequestError(f"{flag} is not JSON ({error}): {example}") from error
    if not isinstance(value, dict):
        raise RequestError(f"{flag} must be a JSON object such as '{{\"name\": 1.0}}', not {text}")
    if _depth(value) > MAX_JSON_DEPTH:
        raise RequestError(f"{flag} is nested too deeply: {example}")
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects are inside each other."""
    level, depth = [value], 0
    while level:
        nested = [x for x in level if isinstance(x, dict | list)]
        level = [y for x in nested for y in (x.values() if isinstance(x, dict) else x)]
        depth += 1
    return depth


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; JSON does not say which of two equal names counts."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _no_nan(name: str) -> float:
    """Infinity, which some arguments may be; NaN is a value of none."""
    if name == "NaN":
        raise ValueError("NaN is not a number")
    return float(name)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping.

    Raises:
        RequestError: the file cannot be read, or does not hold a mapping.
    """
    try:
        return read_config(path)
    except FileNotFoundError as error:
        raise RequestError(f"{path} cannot be read: there is no such file") from error


def _to_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise RequestError(f"the configuration's {key} cannot be JSON: {error}") from error


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings from a file as command-line flags, so that both are checked in the same way."""
    flags: list[str] = []
    for key, value in settings.items():
        if not isinstance(key, str):
            raise RequestError(f"the configuration's key {key!r} is not the name of a setting")
        flag = flag_name(key)
        if value is None:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list | tuple):
            flags += [flag, *(str(item) for item in value)]
        elif isinstance(value, dict):
            flags += [flag, _to_json(key, value)]
        else:
            flags += [flag, str(value)]
    return flags
