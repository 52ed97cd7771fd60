"""The page on own agents: its file and its commands, as a person follows them, and in Python."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pgtoolkit
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli import main as cli

PAGE = (Path(__file__).parents[1] / "docs" / "custom_agents.md").read_text()
FILES = dict(re.findall(r"^```py\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
]
QUICK: dict[str, Any] = {"num_envs": 4, "n_steps": 8, "eval_episodes": 2, "eval_interval": 0}
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]


def call(*arguments: str) -> int:
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


def quickened(arguments: list[str]) -> list[str]:
    """The command's arguments with fewer steps, seeds and trials."""
    fewer = {"--total-steps": "160", "--seeds": "1", "--trials": "1"}
    found = list(arguments)
    for flag, value in fewer.items():
        if flag in found:
            found[found.index(flag) + 1] = value
    if found[0] == "train" and "--help" not in found:
        return [*found, *FLAGS]
    if found[0] == "compare":
        return [*found, "--set", "num_envs=4", "n_steps=8", "--final-episodes", "1"]
    if found[0] == "tune":
        return [*found, "--num-envs=4", "--n-steps=8", "--final-episodes", "1"]
    return [*found, "--episodes", "2"] if found[0] == "evaluate" else found


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the page's file, and a user without a key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, code in FILES.items():
        Path(name).write_text(code)
    yield tmp_path
    sys.modules.pop("ranked", None)


def test_the_page_has_one_file() -> None:
    assert list(FILES) == ["ranked.py"]


@pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")
def test_the_commands_work_in_their_order(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "pgtoolkit"
        if arguments[0] == "tune":
            pytest.importorskip("optuna")
        assert call(*quickened(arguments)) == 0, command
        ran.append(arguments[0])
    assert ran == ["train", "evaluate", "train", "compare", "tune"]
    printed = capsys.readouterr().out
    assert "Exponent of the ranks" in printed  # the help of its own setting
    assert "| Ranked:power=3 |" in printed and str(place) not in printed.split("| CartPole-v1 ")[1]
    config = yaml.safe_load(Path("runs/ranked/config.yaml").read_text())
    assert config["agent"] == f"{place}/ranked.py:Ranked"
    assert call("resume", "runs/ranked", "--total-steps", "320") == 0
    assert call("export", "runs/ranked", "--output", "policy.pt2") == 0
    assert call("plot", "runs/ranked", "--output", "plot.png", "--panels", "return") == 0
    assert call("report", "runs/ranked", "--output", "report.html") == 0
    report = Path("report.html").read_text()
    assert "Ranked on CartPole-v1" in report
    first, _, all_settings = report.rpartition("<details>")
    assert ">power<" in first and ">on_fault<" in all_settings
    assert ">on_fault<" not in first  # it has its default


def test_from_python_the_settings_and_the_name_are_the_same(place: Path) -> None:
    """Both runs end with equal weights, and the folder's name has the class alone."""
    import ranked  # type: ignore[import-not-found]

    common: dict[str, Any] = {"total_steps": 160, "quiet": True}
    loop = {name: QUICK[name] for name in ("eval_episodes", "eval_interval")}
    sizes = {name: QUICK[name] for name in ("num_envs", "n_steps")}
    config = ranked.RankedConfig(power=3.0, **sizes)
    one = pgtoolkit.train(config, "CartPole-v1", **common, **loop)
    two = pgtoolkit.train("ranked.py:Ranked", "CartPole-v1", power=3.0, **common, **QUICK)
    assert one.settings.agent_name == two.settings.agent_name == f"{place}/ranked.py:Ranked"
    assert "__Ranked__0__" in one.directory.name
    for name, value in one.policy.module.state_dict().items():
        assert value.equal(two.policy.module.state_dict()[name])
    again = pgtoolkit.load(one.directory)
    assert again.settings.agent == config  # of one class, however the file is imported
    with pytest.raises(RequestError, match="power must be above 0, not -1"):
        pgtoolkit.train("ranked.py:Ranked", "CartPole-v1", power=-1.0, **common)
    with pytest.raises(RequestError, match=r"give settings RankedConfig\(\.\.\.\), not the class"):
        pgtoolkit.train(ranked.RankedConfig, "CartPole-v1", **common)


def test_settings_that_have_no_agent_beside_them_are_refused() -> None:
    """Those of a class inside a function, and those whose agent has another name."""
    import ranked

    class LocalConfig(ranked.RankedConfig):  # type: ignore[misc]
        pass

    with pytest.raises(RequestError, match="at the top of a file, beside its agent"):
        pgtoolkit.train(LocalConfig(), "CartPole-v1")
    ranked.OtherConfig = type("OtherConfig", (ranked.RankedConfig,), {"__module__": "ranked"})
    with pytest.raises(RequestError, match="settings without an agent"):
        pgtoolkit.train(ranked.OtherConfig(), "CartPole-v1")


def test_a_fault_of_the_agents_names_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = FILES["ranked.py"].replace("return centred.sign()", "return centred.sgn().wrong()")
    Path("broken.py").write_text(text)
    assert call("train", "broken.py:Ranked", "--env", "CartPole-v1", *FLAGS) != 0
    assert "broken.py, line" in capsys.readouterr().err
