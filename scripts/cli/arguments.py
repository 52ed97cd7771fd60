"""Command-line arguments from dataclasses, with errors of one line."""

import contextlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import COMMANDS

T = TypeVar("T")

BOX = "╭╮╰╯│─"


def parse(cls: type[T], arguments: Sequence[str], *, command: str) -> T:
    """Fills a dataclass from flags; ``--help`` prints its fields and exits 0.

    Raises:
        RequestError: what tyro found wrong, in one line.
    """
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(cls, args=list(arguments), prog=program(command))
    except SystemExit as error:
        if not error.code:
            raise
        raise RequestError(
            f"{_one_line(output.getvalue())} (see {program(command)} --help)"
        ) from error


def program(command: str) -> str:
    """How a person calls it."""
    known_here = command.split()[0] in COMMANDS
    return f"pgtoolkit {command}" if known_here else f"python scripts/{command}.py"


def _one_line(report: str) -> str:
    """The first paragraph of tyro's framed report, and its suggestion if it has one."""
    lines = [line.strip(f" {BOX}") for line in report.splitlines()]
    rule = next((i for i, line in enumerate(report.splitlines()) if "│ ──" in line), len(lines))
    text = " ".join(line for line in lines[1:rule] if line)
    for i, line in enumerate(lines):
        if line == "Perhaps you meant:":
            text += f"; perhaps {lines[i + 1]}"
    # What a dataclass's own check says needs no word on where tyro met it.
    return re.sub(r"^Error parsing (agent|loop|run|\w+Arguments): ", "", text).replace("  ", " ")


def parse_json_object(text: str, flag: str) -> dict[str, Any]:
    """A JSON object given to a flag.

    Raises:
        RequestError: it is not one; shows the form.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"{flag} is not JSON ({error}): write it as {flag} '{{\"name\": 1.0}}'"
        ) from error
    if not isinstance(value, dict):
        raise RequestError(f"{flag} must be a JSON object such as '{{\"name\": 1.0}}', not {text}")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        RequestError: it cannot be read, or holds something else.
    """
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RequestError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise RequestError(f"{path} must hold a mapping of settings")
    return value


def _to_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise RequestError(f"the configuration's {key} cannot be JSON: {error}") from error


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags, so that a file is checked exactly as the command line is."""
    flags: list[str] = []
    for key, value in settings.items():
        if not isinstance(key, str):
            raise RequestError(f"the configuration's key {key!r} is not the name of a setting")
        name = key.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list | tuple):
            flags += [f"--{name}", *(str(item) for item in value)]
        elif isinstance(value, dict):
            flags += [f"--{name}", _to_json(key, value)]
        else:
            flags += [f"--{name}", str(value)]
    return flags
