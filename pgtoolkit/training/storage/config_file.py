"""Configurations in YAML: a mapping of plain values, read with limits and written to be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.training.storage.files import excerpt, read_regular, system_reason

MAX_CONFIG_BYTES = 256 * 1024
"""A run's configuration has some 4 kB; one argument of a command line has 128 kB at most."""

MAX_CONFIG_VALUES = 20_000
"""A run's configuration has some hundred; a matrix of 100 x 100 in ``env_kwargs`` has 10,000. So
many are read in half a second."""

MAX_CONFIG_DEPTH = 50
"""Lists and mappings inside each other; a run's configuration has five."""

MAX_NUMBER_CHARACTERS = 400
"""Characters of a number; a float that is written out has 330 at most. Converting takes quadratic
time."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = {
    yaml.ScalarNode: tuple(TAG + name for name in ("null", "bool", "int", "float", "str")),
    yaml.SequenceNode: (TAG + "seq",),
    yaml.MappingNode: (TAG + "map",),
}
"""The kinds of values that a configuration holds. YAML has others, such as dates and sets."""


class _Refused(Exception):
    """Why a text is no configuration, in words."""


class _PlainDumper(yaml.SafeDumper):
    """Writes out a list that occurs twice, where YAML would refer to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_config(path: Path, *, inside: Path | None = None) -> dict[Any, Any]:
    """Reads a YAML file that holds a mapping of plain values.

    Plain are None, booleans, numbers, text, lists and mappings. References (``*name``) are refused:
    a few lines of them can stand for more values than memory holds, or for a list inside itself.

    Args:
        path: the file.
        inside: the folder in which the file must be, after links are followed; None for anywhere.

    Raises:
        FileNotFoundError: there is no such file.
        RequestError: the file cannot be read, is too large, or is not a mapping of plain values.
    """
    try:
        text = read_regular(path, inside=inside, limit=MAX_CONFIG_BYTES).decode()
        return parse_config(text)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RequestError(f"{excerpt(path)} cannot be read: {system_reason(error)}") from error
    except (UnicodeDecodeError, yaml.YAMLError, _Refused) as error:
        raise RequestError(f"{excerpt(path)} cannot be read: {excerpt(error)}") from error


def parse_config(text: str) -> dict[Any, Any]:
    """The mapping that a YAML text holds; see :func:`read_config` for what is refused."""
    _require_small(text)
    node = yaml.compose(text, Loader=LOADER)
    if not isinstance(node, yaml.MappingNode):
        raise _Refused("it must hold a mapping of settings, such as `env: Pendulum-v1`")
    value: dict[Any, Any] = _value(node, "", LOADER(""))
    return value


def config_text(config: Mapping[str, Any]) -> str:
    """A mapping as YAML that :func:`read_config` reads.

    Raises:
        RequestError: it would be too long to be read again.
    """
    text: str = yaml.dump(dict(config), Dumper=_PlainDumper, sort_keys=False)
    try:
        _require_small(text)
    except _Refused as error:
        raise RequestError(
            f"the settings are too long to be written and read again ({error}): keep long "
            "arguments in a file that the environment reads"
        ) from error
    return text


def _require_small(text: str) -> None:
    """Checks length, depth, number of values and references before anything is made of a text."""
    if len(text) > MAX_CONFIG_BYTES:
        raise _Refused(f"it has {len(text):,} characters, more than {MAX_CONFIG_BYTES:,}")
    depth = values = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(
                f"line {_line(event)} has a reference (*{event.anchor}): write the value out"
            )
        values += isinstance(event, yaml.NodeEvent)
        if values > MAX_CONFIG_VALUES:
            raise _Refused(f"it has more than {MAX_CONFIG_VALUES:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_CONFIG_DEPTH:
            raise _Refused(
                f"line {_line(event)} is nested more than {MAX_CONFIG_DEPTH} levels deep"
            )


def _value(node: yaml.Node, place: str, loader: Any) -> Any:
    """The plain value of a node; ``place`` is where it stands, such as ``env_kwargs.mass``."""
    line = _line(node)
    if node.tag not in PLAIN_TAGS[type(node)]:
        kind = node.tag.removeprefix(TAG)
        raise _Refused(
            f"{excerpt(place)} in line {line} is a {excerpt(kind)}, which no setting is: write "
            "text in quotes"
        )
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, place, loader) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, loader)
    if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_NUMBER_CHARACTERS:
        raise _Refused(f"{excerpt(place)} in line {line} is a number of {len(node.value):,} digits")
    try:
        return loader.construct_object(node)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise _Refused(
            f"{excerpt(place)} in line {line} is not what it says: {excerpt(node.value)}"
        ) from error


def _mapping(node: yaml.MappingNode, place: str, loader: Any) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _Refused(f"line {_line(key_node)} has a list or a mapping as a key")
        key = _value(key_node, f"a key of {place or 'the mapping'}", loader)
        if key in values:
            raise _Refused(
                f"line {_line(key_node)} gives {excerpt(key)} a second time: take one out"
            )
        values[key] = _value(value_node, f"{place}.{key}" if place else str(key), loader)
    return values


def _line(part: Any) -> int:
    """The line in which an event or a node begins, from 1."""
    return int(part.start_mark.line) + 1
