"""Agents of a comparison, each with settings of its own: ``reppo:estimator=score_function``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.own_agents import short_name
from pgtoolkit.scripts.cli.registry import AGENTS, require_agent

OPENING, CLOSING = "[{", "]}"


@final
class Variant(NamedTuple):
    """An agent with settings that differ from its defaults."""

    label: str
    """Its name in tables and legends: the text on the command line, without the place of an own
    agent's class."""
    agent: str
    settings: Mapping[str, Any]


def parse_variants(texts: Sequence[str], assignments: Sequence[str]) -> list[Variant]:
    """The agents of a comparison.

    Args:
        texts: ``AGENT`` or ``AGENT:SETTING=VALUE,SETTING=VALUE``; an agent's name may be
            ``path/to/file.py:Class``.
        assignments: ``SETTING=VALUE`` for all agents, or ``AGENT.SETTING=VALUE`` for one; the
            settings in ``texts`` win over them.

    Raises:
        RequestError: there is no such agent, the text is no setting, or a label is there twice.
    """
    common = [parse_assignment(text) for text in assignments]
    variants = [_with_common(parse_variant(text), common) for text in texts]
    labels = [variant.label for variant in variants]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise RequestError(f"--agents has {twice} twice: leave one of them out")
    unused = sorted({agent for agent, _, _ in common if agent} - {v.agent for v in variants})
    if unused:
        raise RequestError(f"--set is about {unused[0]}, which --agents does not name")
    return variants


def parse_variant(text: str) -> Variant:
    """``AGENT`` or ``AGENT:SETTING=VALUE,SETTING=VALUE``.

    Raises:
        RequestError: there is no such agent, or the rest is no list of settings.
    """
    agent, colon, rest = text.partition(":")
    if colon and agent not in AGENTS and "=" not in rest.partition(":")[0]:
        name, colon, rest = rest.partition(":")
        agent = f"{agent}:{name}"
    require_agent(agent)
    pairs = [parse_setting(part, text) for part in split_outside_brackets(rest)] if colon else []
    return Variant(f"{short_name(agent)}{colon}{rest}", agent, dict(pairs))


def parse_assignment(text: str) -> tuple[str | None, str, Any]:
    """``SETTING=VALUE`` or ``AGENT.SETTING=VALUE``: the agent if there is one, name and value.

    Raises:
        RequestError: it is neither.
    """
    key, equals, value = text.partition("=")
    agent, dot, name = key.rpartition(".")
    if dot:
        require_agent(agent)
    return agent if dot else None, *parse_setting(f"{name}{equals}{value}", text)


def parse_setting(part: str, text: str) -> tuple[str, Any]:
    """Name and value of ``SETTING=VALUE``; the value is read as YAML, such as ``[64, 64]``.

    Args:
        part: the setting.
        text: the argument in which it stands, for the error message.

    Raises:
        RequestError: it is no setting.
    """
    name, equals, value = part.strip().partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals or not name.isidentifier() or not value.strip():
        raise RequestError(
            f"{part!r} in {text!r} is no setting: write SETTING=VALUE, such as learning_rate=1e-3"
        )
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RequestError(
            f"the value of {name} in {text!r} cannot be read: write a number, a word, or a list "
            "such as [64, 64]"
        ) from error


def split_outside_brackets(text: str) -> list[str]:
    """The parts between the commas that are in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in OPENING) - (character in CLOSING)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _with_common(variant: Variant, common: Sequence[tuple[str | None, str, Any]]) -> Variant:
    """The variant with the common settings that it does not set itself; later ones win."""
    for_all = {name: value for agent, name, value in common if agent is None}
    for_it = {name: value for agent, name, value in common if agent == variant.agent}
    return variant._replace(settings={**for_all, **for_it, **variant.settings})
