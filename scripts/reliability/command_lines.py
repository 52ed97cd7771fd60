"""Random command lines: every command, every option that its help names, all kinds of values."""

import contextlib
import dataclasses
import io
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from pgtoolkit.scripts.cli.main import dispatch
from pgtoolkit.scripts.cli.registry import AGENTS, BENCHMARKS, COMMANDS
from pgtoolkit.scripts.reliability.random_values import ENVS, TEXTS, draw_value

OPTION = re.compile(r"^[│ ]*(--[a-z][a-z0-9-]*)(?:, --no-[a-z0-9-]+)?(?: +(\{[^}\s]*\}))?", re.M)
"""An option at the start of a line of a help, with the list of its values if there is one."""

Options = Mapping[str, Sequence[str]]
"""An option to the values that its help lists."""

SMALL_TRAINING = {
    "--env": "pgtoolkit/PointMass-v0",
    "--num-envs": "2",
    "--n-steps": "4",
    "--total-steps": "16",
    "--eval-episodes": "1",
    "--eval-max-steps": "20",
    "--hidden": "4",
    "--compile": "never",
}
"""Options of a training that takes a moment; one that an agent does not have is left out."""

SMALL_WORK = {
    "evaluate": {"--episodes": "1", "--eval-max-steps": "20"},
    "variance": {"--horizons": "2", "--trajectories": "64"},
    "check-env": {"--seconds": "0.05", "--samples": "4"},
    "resume": {"--total-steps": "32"},
    "plot": {"--output": "picture.png"},
    "export": {"--output": "policy.pt2"},
    "compare": {
        "--env": "pgtoolkit/PointMass-v0",
        "--agents": "shac",
        "--seeds": "1",
        "--total-steps": "16",
        "--set": "compile=never",
        "--eval-episodes": "1",
        "--final-episodes": "1",
    },
    "tune": {
        "--env": "pgtoolkit/PointMass-v0",
        "--trials": "1",
        "--seeds": "1",
        "--total-steps": "16",
        "--compile": "never",
        "--eval-episodes": "1",
        "--final-episodes": "1",
    },
}
"""Options with which the other commands take a moment."""

SHARES = {"train": 8, "other": 1, "list": 1, "benchmark": 1}
"""How often a command is drawn, beside 2 for every other one."""


@final
@dataclasses.dataclass(frozen=True)
class Grammar:
    """The options of every command, and of ``train`` with every agent, as their helps name them."""

    commands: Mapping[str, Options]
    agents: Mapping[str, Options]


def read_grammar() -> Grammar:
    """Reads the help of every command and agent, so that a new one is covered by being listed."""
    return Grammar(
        {name: options_in(help_of(name)) for name in COMMANDS if name not in ("train", "list")},
        {name: options_in(help_of("train", name)) for name in AGENTS},
    )


def help_of(command: str, *rest: str) -> str:
    """What ``pgtoolkit COMMAND ... --help`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        dispatch(command, [*rest, "--help"])
    return output.getvalue()


def options_in(text: str) -> Options:
    """The options that a help names at the start of a line, without ``--help`` itself."""
    found = {name: choices for name, choices in OPTION.findall(text) if name != "--help"}
    return {
        name: choices.strip("{}").split(",") if choices else [] for name, choices in found.items()
    }


def draw_command(grammar: Grammar, run: Path, generator: random.Random) -> list[str]:
    """A random command line, without the program's name.

    Args:
        grammar: the options that there are.
        run: a run's folder that the command may read and change.
        generator: draws.
    """
    names = ["train", "list", "other", *grammar.commands]
    command = generator.choices(names, [SHARES.get(name, 2) for name in names])[0]
    if command == "train":
        return draw_training(grammar, generator)
    if command == "list":
        kinds = ("agents", "envs", "estimators", "wrappers", *TEXTS)
        return ["list", *generator.choices(kinds, k=generator.randrange(3))]
    if command == "other":
        return [generator.choice(TEXTS) or "x", generator.choice(TEXTS)]
    options = grammar.commands[command]
    if command == "benchmark":
        return draw_benchmark(options, generator)
    given = {name: [value] for name, value in SMALL_WORK.get(command, {}).items()}
    subject = {"check-env": generator.choice(ENVS), "tune": "apg"}.get(command, str(run))
    place = [] if command == "compare" or generator.random() < 0.05 else [subject]
    if generator.random() < 0.1:
        place = [generator.choice(TEXTS)]
    return [command, *place, *words(given | draw_options(options, (0, 1, 1, 2), generator))]


def draw_training(grammar: Grammar, generator: random.Random) -> list[str]:
    """``train`` with a small training, of which one option or a few are replaced."""
    agent = generator.choice(list(grammar.agents))
    options = grammar.agents[agent]
    given = {name: [value] for name, value in SMALL_TRAINING.items() if name in options}
    given |= {"--run-dir": ["new_run"]} | draw_options(options, (1, 1, 1, 2, 3), generator)
    return ["train", agent, *words(given)]


def draw_benchmark(options: Options, generator: random.Random) -> list[str]:
    """``benchmark``, with a name that there is not or ``--list``, so that nothing is timed."""
    name = generator.choice((*TEXTS, "pathwis", *BENCHMARKS))
    drawn = words(draw_options(options, (0, 1, 2), generator))
    return ["benchmark", name, "--list", *drawn, *([] if "--list" in drawn else ["--list"])]


def draw_options(
    options: Options, counts: Sequence[int], generator: random.Random
) -> dict[str, list[str]]:
    """A few options with random values."""
    count = min(generator.choice(counts), len(options))
    chosen = generator.sample(sorted(options), count)
    return {name: draw_value(name, options[name], generator) for name in chosen}


def words(given: Mapping[str, Sequence[str]]) -> list[str]:
    """The options as words of a command line."""
    return [word for name, values in given.items() for word in (name, *values)]
