"""The short form of ``scripts/studies/random_commands.py``, and what it would find."""

import dataclasses
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.scripts.cli.registry import AGENTS, COMMANDS
from pgtoolkit.scripts.reliability.command_lines import (
    draw_command,
    draw_training,
    options_in,
    read_grammar,
)
from pgtoolkit.scripts.reliability.forked_command import Limits, Outcome, run_forked
from pgtoolkit.scripts.reliability.judged import fault_of
from pgtoolkit.scripts.studies.random_commands import short_command, try_commands

COMMANDS_IN_SUITE = 100

needs_fork = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks with limits")

SOUND = Outcome(["train", "shac"], 0, "run: x\n", "", False, "", [])


@needs_fork
def test_random_command_lines_end_in_a_result_or_a_line(tmp_path: Path) -> None:
    outcomes = list(try_commands(tmp_path, COMMANDS_IN_SUITE, 0))
    found = {fault: short_command(x) for x in outcomes if (fault := fault_of(x)) is not None}
    assert found == {} and {outcome.code for outcome in outcomes} >= {0, 2}


def test_every_option_of_the_help_is_drawn() -> None:
    """Also those that only a help names, so that a new one is covered."""
    grammar = read_grammar()
    assert set(grammar.agents) == set(AGENTS)
    assert set(grammar.commands) | {"train", "list"} == set(COMMANDS)
    assert {"--run-dir", "--config", "--env", "--hidden"} <= grammar.agents["ppo"].keys()
    assert grammar.agents["ppo"]["--device"] == ["cpu", "cuda", "auto"]
    generator = random.Random(0)
    # A line has 1.6 of its agent's options on average, so each is expected more than 20 times.
    count = 13 * sum(map(len, grammar.agents.values()))
    drawn: dict[str, set[str]] = {agent: set() for agent in grammar.agents}
    for _, agent, *words in (draw_training(grammar, generator) for _ in range(count)):
        drawn[agent] |= set(words)
    assert all(options.keys() <= drawn[agent] for agent, options in grammar.agents.items())
    commands = {draw_command(grammar, Path("run"), generator)[0] for _ in range(1000)}
    assert commands >= set(COMMANDS)
    assert options_in("│ --a INT  text --b │\n│ --c, --no-c │\n--d {x,y}\n") == {
        "--a": [],
        "--c": [],
        "--d": ["x", "y"],
    }


FAULTS: dict[str, dict[str, Any]] = {
    "traceback": {"code": 1, "errors": "Traceback (most recent call last):\nKeyError: 1\n"},
    "a fault of this package": {
        "code": 1,
        "errors": "error: KeyError\nthis is a fault of pgtoolkit",
    },
    "exit code -6": {"code": -6},
    "hangs": {"code": -9, "interrupted": True, "output": ""},
    "writes outside": {"outside": ["/etc/passwd"]},
    "4 lines": {"code": 2, "errors": "a\nb\nc\nd\n"},
    "a line of 3,000": {"code": 2, "errors": "a" * 3000},
    "without a reason": {"code": 2},
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault_is_seen(name: str) -> None:
    fault = fault_of(dataclasses.replace(SOUND, **FAULTS[name]))
    assert fault is not None and name in fault


def test_sound_ends_are_no_faults() -> None:
    """Among them a command that was at work, and a folder that the user named."""
    assert fault_of(SOUND) is None
    assert fault_of(dataclasses.replace(SOUND, code=2, errors="error: no\n")) is None
    assert fault_of(dataclasses.replace(SOUND, code=130, interrupted=True)) is None
    asked = dataclasses.replace(SOUND, arguments=["evaluate", "/"], outside=["/config.yaml"])
    assert fault_of(asked) is None


@needs_fork
def test_a_child_has_limits_and_its_output_is_read(tmp_path: Path) -> None:
    """A wrong name ends with a line; a write outside the folder is refused and reported."""
    (tmp_path / "work" / "a" / "b" / "c").mkdir(parents=True)
    wrong = run_forked(["trian"], tmp_path, Limits())
    assert (wrong.code, wrong.outside) == (2, []) and "train" in wrong.errors
    outside = f"{tmp_path.parent}/outside.json"
    line = ["check-env", "pgtoolkit/Wall-v0", "--json", outside]
    refused = run_forked(line, tmp_path, Limits())
    assert refused.code == 2 and "Permission denied" in refused.errors
    assert refused.outside == [outside] and not Path(outside).exists()
