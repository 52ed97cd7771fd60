"""Agents of the user's own: what is missing in one is said before anything is trained."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.cli.own_agents import (
    load_own_agent,
    names_own_agent,
    own_agent_of,
    short_name,
)
from pgtoolkit.scripts.cli.registry import load_agent, require_agent
from pgtoolkit.scripts.comparison.variants import parse_assignment, parse_variant

PAGE = (Path(__file__).parents[3] / "docs" / "custom_agents.md").read_text()
AGENT = PAGE.partition("```py\n")[2].partition("```")[0]
QUICK = ["--total-steps", "40", "--num-envs", "2", "--n-steps", "10", "--hidden", "4"]
QUICK += ["--eval-episodes", "1", "--eval-interval", "0"]


def call(*arguments: str) -> int:
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def write(path: str, *changes: tuple[str, str]) -> str:
    text = AGENT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    Path(path).write_text(text)
    return path


def test_names_of_own_agents_are_told_from_the_packages() -> None:
    assert [names_own_agent(name) for name in ("ppo", "a.py:Mine", "pkg.mod:Mine", "a.py")] == [
        False,
        True,
        True,
        True,
    ]
    assert [short_name(name) for name in ("ppo", "/x/a.py:Mine", "m:Mine")] == [
        "ppo",
        "Mine",
        "Mine",
    ]
    require_agent("nowhere.py:Mine")  # loaded, and refused, only when it is needed
    with pytest.raises(RequestError, match="no agent named 'nothing'"):
        require_agent("nothing")


def test_a_class_in_a_file_and_one_in_a_module_are_loaded(place: Path) -> None:
    write("mine.py")
    sys.path.insert(0, str(place))
    for name in ("mine.py:Ranked", f"{place}/mine.py:Ranked", "mine:Ranked"):
        agent, config = load_agent(name)
        assert (agent.__name__, config.__name__) == ("Ranked", "RankedConfig")
        assert config().power == 1.0
    sys.modules.pop("mine")


WRONG: dict[str, tuple[list[tuple[str, str]], str, str]] = {
    "no such class": ([], "Other", "has no class 'Other': it defines Ranked"),
    "the settings": ([], "RankedConfig", "it has no collect, update, state_dict"),
    "a function": ([], "window_returns", "is a function, and an agent is a class"),
    "no collect": ([("def collect", "def gather")], "Ranked", "it has no collect"),
    "no word on the gradient": (
        [("ClassVar[bool] = False", "ClassVar[bool]")],
        "Ranked",
        "does not say whether it differentiates",
    ),
    "no seed": ([("seed=0", "start=0"), ("seed=seed", "seed=0")], "Ranked", "has no seed"),
    "no settings": ([("RankedConfig", "RankedOptions")], "Ranked", "has no RankedConfig"),
    "other settings": (
        [("    RolloutSettings, AdamSettings, ", "    AdamSettings, ")],
        "Ranked",
        "is not a class of settings: RankedConfig",
    ),
    "no default": (
        [("Annotated[float, above(0)] = 1.0", "Annotated[float, above(0)]")],
        "Ranked",
        "cannot be made without arguments",
    ),
    "a default out of range": (
        [("Annotated[float, above(0)] = 1.0", "Annotated[float, above(0)] = -1.0")],
        "Ranked",
        "power must be above 0",
    ),
    "no dataclass": (
        [("@dataclasses.dataclass(frozen=True, kw_only=True)\n", "")],
        "Ranked",
        "is not a dataclass of its own",
    ),
    "an import that fails": (
        [("STATE = (", "STATE = nothing, (")],
        "Ranked",
        "NameError: name 'nothing'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_missing_is_said(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, name, words = WRONG[case]
    file = write("wrong.py", *changes)
    with pytest.raises(RequestError) as caught:
        load_own_agent(f"{file}:{name}")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert call("train", f"{file}:{name}", "--env", "CartPole-v1") == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_file_that_is_not_there_and_a_name_without_a_class() -> None:
    with pytest.raises(
        RequestError, match=r"no file gone\.py: write the agent as path/to/file\.py"
    ):
        load_own_agent("gone.py:Mine")
    with pytest.raises(RequestError, match=r"say which class .* gone\.py:Class"):
        load_own_agent("gone.py")
    with pytest.raises(RequestError, match="module no_such_module cannot be imported"):
        load_own_agent("no_such_module:Mine")


def test_a_variant_of_a_comparison_has_a_short_label() -> None:
    plain, changed = parse_variant("a/b.py:Mine"), parse_variant("a/b.py:Mine:power=2,gamma=0.9")
    assert plain[:2] == ("Mine", "a/b.py:Mine") and plain.settings == {}
    assert changed[:2] == ("Mine:power=2,gamma=0.9", "a/b.py:Mine")
    assert changed.settings == {"power": 2, "gamma": 0.9}
    assert parse_variant("ppo:gamma=0.9")[:2] == ("ppo:gamma=0.9", "ppo")
    assert parse_assignment("a/b.py:Mine.power=2") == ("a/b.py:Mine", "power", 2)
    with pytest.raises(RequestError, match="is no setting"):
        parse_variant("ppo:gamma")


def test_settings_name_their_agent(place: Path) -> None:
    write("mine.py")
    _, config = load_own_agent("mine.py:Ranked")
    assert own_agent_of(config()) == f"{place}/mine.py:Ranked"


def trained(place: Path) -> Path:
    """A run with an agent whose file says, from now on, when it is imported."""
    write("mine.py")
    assert call("train", "mine.py:Ranked", "--env", "CartPole-v1", "--run-dir", "run", *QUICK) == 0
    path = place / "elsewhere.py"
    path.write_text(f"open({str(place / 'ran')!r}, 'w').close()\n{AGENT}")
    return path


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "run", "--episodes", "1"],
        ["resume", "run", "--total-steps", "80"],
        ["variance", "run", "--trajectories", "10"],
        ["export", "run", "--output", "policy.pt2"],
        ["report", "run", "--output", "report.html"],
        ["plot", "run", "--output", "plot.png", "--panels", "return"],
    ],
    ids=lambda command: command[0],
)
def test_no_command_runs_an_agent_that_a_folder_names(
    command: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder from elsewhere may name any file; reports and pictures do without the code."""
    other = trained(place)
    config: dict[str, Any] = yaml.safe_load(Path("run/config.yaml").read_text())
    Path("run/config.yaml").write_text(yaml.safe_dump(config | {"agent": f"{other}:Ranked"}))
    code = call(*command)
    assert not (place / "ran").exists()
    if command[0] not in ("report", "plot"):
        assert code == 2
        assert "was not trained here by you" in capsys.readouterr().err
    if command[0] in ("evaluate", "resume", "export"):
        assert call(*command, "--trust") == 0
        assert (place / "ran").exists()
