"""The text of ``--help`` of every command."""

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import tyro

from pgtoolkit.scripts.cli.help.examples import EXAMPLES
from pgtoolkit.scripts.cli.help.help_text import Group, help_text, option_text, usage_line
from pgtoolkit.scripts.cli.help.options import Option, options_of
from pgtoolkit.scripts.cli.help.tables import table
from pgtoolkit.scripts.cli.main import run_arguments, usage
from pgtoolkit.scripts.cli.registry import AGENTS, COMMANDS, load_agent
from pgtoolkit.scripts.reliability.command_lines import help_of, options_in
from pgtoolkit.scripts.train import TrainArguments, option_groups
from pgtoolkit.training.loop import TrainConfig

PAGES = [(name,) for name in COMMANDS] + [("train", name) for name in AGENTS]

NUMBER = Option("number", ("--number",), "INT", (), False, "A number.", "3")


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_every_page_begins_with_an_example_and_fits(page: tuple[str, ...]) -> None:
    """80 columns, also on a wide terminal; the usage; no brackets of tyro's."""
    text = help_of(*page)
    assert text.startswith("example:\n  pgtoolkit ") and "\nusage: pgtoolkit " in text
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "{None}" not in text and "[INT" not in text and "STR" not in text.split()


def test_the_pages_fit_narrow_and_wide_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = help_of("resume")
    monkeypatch.setenv("COLUMNS", "200")
    assert help_of("resume") == wide
    monkeypatch.setenv("COLUMNS", "60")
    *_, options = help_of("resume").split("options:")
    assert max(map(len, options.splitlines())) <= 60
    assert all(len(line) <= 80 for line in usage().splitlines())


def first_word(name: str) -> str:
    return name.removeprefix("--")


@pytest.mark.parametrize("agent", AGENTS)
def test_the_settings_that_matter_stand_before_the_others(agent: str) -> None:
    """The environment, the number of steps and the seed; then those of the agent."""
    flags = list(options_in(help_of("train", agent)))
    assert flags[:3] == ["--env", "--total-steps", "--seed"]
    assert set(flags[3:8]) >= {"--run-dir", "--num-envs", "--n-steps"}
    assert {"--learning-rate", "--target-kl"} & set(flags[3:8])  # the length of a step
    assert flags.index("--gamma") < flags.index("--env-kwargs")
    assert len(flags) == len(set(flags))


def tyros_options(kind: type[Any]) -> set[str]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"])
    return set(re.findall(r"(?<![\w`-])--[a-z][a-z0-9-]*(?=[ ,])", output.getvalue()))


def kinds() -> Iterator[Any]:
    for name in COMMANDS:
        module = importlib.import_module(f"pgtoolkit.scripts.{name.replace('-', '_')}")
        kind = getattr(module, f"{name.title().replace('-', '')}Arguments", None)
        if kind is not None:
            yield kind
    yield TrainConfig
    yield from (load_agent(name)[1] for name in AGENTS)


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_the_options_are_those_that_are_parsed(kind: Any) -> None:
    """Each flag that a help shows is one that tyro takes, and tyro takes no other."""
    flags = {flag for option in options_of(kind) for flag in option.flags}
    assert flags <= tyros_options(kind) and len(flags) > 0
    assert [option.name for option in options_of(kind) if not option.text] == []


def test_train_shows_all_that_it_takes() -> None:
    names = {option.name for group in option_groups("shac") for option in group.options}
    fields = {option.name for kind in (TrainArguments, TrainConfig) for option in options_of(kind)}
    assert fields | {"env", "device", "n_steps", "vf_epochs"} <= names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_with_options_that_exist(name: str) -> None:
    example = EXAMPLES[name]
    words = shlex.split(example.line.format(agent="shac"))
    assert words[:2] == ["pgtoolkit", name]
    shown = options_in(help_of(*words[1:3]) if name == "train" else help_of(name))
    assert {word for word in words if word.startswith("--")} <= set(shown)
    fields = {first_word(flag).replace("-", "_") for flag in shown} | {
        "run",
        "runs",
        "names",
        "env",
    }
    own = {"batch_size", "estimator", "ent_coef_relative", "target_kl", "amplification_bound"}
    agents = own if name == "train" else set()
    assert set(example.first) <= fields | agents


def test_a_long_list_of_choices_is_broken_behind_its_commas() -> None:
    choices = tuple(f"choice_number_{i}" for i in range(8))
    option = NUMBER._replace(value=f"{{{','.join(choices)}}}", choices=choices)
    lines = option_text(option, 60).splitlines()
    assert lines[0] == "  --number" and max(map(len, lines)) <= 60
    assert "".join(line.strip() for line in lines[1:-1]).replace(" ", "") == option.value
    assert lines[-1].strip() == "A number. (default: 3)"


@pytest.mark.parametrize(
    ("default", "text", "note"),
    [
        (None, "A number.", "A number. (required)"),
        ("3", "A number.", "A number. (default: 3)"),
        ("None", "A number. Default: the run's.", "A number. Default: the run's."),
        ("None", "A number.", "A number. (default: None)"),
        ("", "Names.", "Names. (default: none)"),
    ],
)
def test_the_default_is_said_once(default: str | None, text: str, note: str) -> None:
    option = NUMBER._replace(default=default, text=text)
    assert option_text(option, 80).splitlines()[1].strip() == note


def test_the_usage_has_what_must_be_given() -> None:
    place = Option("place", (), "PLACE", (), True, "", None)
    maybe = place._replace(value="MORE", default="None")
    needed = NUMBER._replace(default=None)
    line = usage_line("pgtoolkit x", [needed, NUMBER, place, maybe])
    assert line == "usage: pgtoolkit x PLACE [MORE] --number INT [options]"


def test_a_command_without_an_example_has_its_options_alone() -> None:
    text = help_text("other", "other", "Does\nit.", [Group("further options", [NUMBER])])
    assert text.startswith("usage: other [options]\n\nDoes it.\n\nfurther options:\n  --number INT")


def test_tables_have_notes_beside_their_names() -> None:
    found = table({"one": "a b c d e f g h", "three": "x"}, 18)
    assert found.splitlines() == ["  one    a b c d e", "         f g h", "  three  x"]


def test_the_programs_own_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    run_arguments([])
    shown = capsys.readouterr().out
    assert shown.startswith("example:\n  pgtoolkit train")
    assert all(f"\n  {name} " in shown for name in COMMANDS)
