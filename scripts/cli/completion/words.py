"""What can be completed: the commands, their options, and the values of these."""

import importlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

from pgtoolkit.scripts.cli.help.options import Option, options_of
from pgtoolkit.scripts.cli.registry import AGENTS, BENCHMARKS, COMMANDS, registered_env_ids
from pgtoolkit.scripts.completion import SHELLS
from pgtoolkit.scripts.list import KINDS
from pgtoolkit.scripts.train import option_groups


@final
class Values(NamedTuple):
    """What may stand behind an option, or by position."""

    words: tuple[str, ...] = ()
    files: bool = False
    many: bool = False
    """Whether several values may follow each other."""


@final
class CommandWords(NamedTuple):
    """What a command takes. Its key is its name, of ``train`` and ``tune`` with the agent's."""

    options: Mapping[str, str]
    """Each flag with what it means."""
    values: Mapping[str, Values]
    """Each flag that takes a value."""
    arguments: Values
    """By position."""


@final
class Words(NamedTuple):
    """Everything that can be completed."""

    commands: Mapping[str, str]
    agents: Mapping[str, str]
    by_key: Mapping[str, CommandWords]


def read_words() -> Words:
    """Reads the commands' dataclasses: an option is completed as soon as it exists."""
    envs = tuple(registered_env_ids())
    by_key = {name: command_words(options_of_command(name), envs) for name in COMMANDS}
    tune = by_key["tune"]
    for name in AGENTS:
        train = command_words(options_of_training(name), envs)
        by_key[f"train {name}"] = train
        by_key[f"tune {name}"] = CommandWords(
            {**train.options, **tune.options}, {**train.values, **tune.values}, Values()
        )
    by_position = {"list": KINDS, "completion": SHELLS, "benchmark": tuple(BENCHMARKS)}
    for name, words in by_position.items():
        by_key[name] = by_key[name]._replace(arguments=Values(words))
    agents = {name: agent.note for name, agent in AGENTS.items()}
    return Words(COMMANDS, agents, by_key)


def options_of_command(name: str) -> list[Option]:
    """The options of a command: of ``CheckEnvArguments`` in the module of ``check-env``."""
    module = importlib.import_module(f"pgtoolkit.scripts.{name.replace('-', '_')}")
    kind = getattr(module, f"{name.title().replace('-', '')}Arguments", None)
    return [] if kind is None else options_of(kind)


def options_of_training(agent: str) -> list[Option]:
    """The options of ``train`` with an agent."""
    return [option for group in option_groups(agent) for option in group.options]


def command_words(options: Sequence[Option], envs: tuple[str, ...]) -> CommandWords:
    """What a command with these options takes.

    Args:
        options: the command's.
        envs: names of environments.
    """
    texts = {flag: option.text for option in options for flag in option.flags}
    values = {o.flags[0]: values_of(o, envs) for o in options if o.flags and o.value}
    arguments = [values_of(option, envs) for option in options if not option.flags]
    texts["--help"] = "Show the help."
    return CommandWords(texts, values, arguments[0] if arguments else Values())


def values_of(option: Option, envs: tuple[str, ...]) -> Values:
    """The values of an option: choices, environments, agents, files."""
    words = {"env": envs, "agents": tuple(AGENTS)}.get(option.name, option.choices)
    return Values(words, option.is_path or option.name == "env", "..." in option.value)
