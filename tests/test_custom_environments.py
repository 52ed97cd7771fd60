"""The page on custom environments: its files and commands, as a person follows them."""

import re
import shlex
from pathlib import Path

import pytest

from pgtoolkit.scripts.cli import main as cli

PAGE = (Path(__file__).parents[1] / "docs" / "custom_environments.md").read_text()
FILES = dict(re.findall(r"^```py\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
]
# What makes a command quick; the tests are of what the page says, not of how well it learns.
QUICK = ["--total-steps", "300", "--num-envs", "4", "--n-steps", "8", "--eval-episodes", "2"]


def call(*arguments: str) -> int:
    name, *rest = arguments
    with pytest.raises(SystemExit) as caught:
        cli.run_command(lambda found: cli.dispatch(name, found), rest)
    return int(caught.value.code or 0)


def quickened(arguments: list[str]) -> list[str]:
    """The command's arguments with fewer steps or trajectories."""
    if arguments[0] == "train":
        at = arguments.index("--total-steps")
        return arguments[:at] + arguments[at + 2 :] + QUICK
    return arguments + (["--trajectories", "20"] if arguments[0] == "variance" else [])


def test_the_page_has_two_files() -> None:
    assert list(FILES) == ["beam.py", "tanks.py"]


@pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")
def test_the_commands_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in FILES.items():
        Path(name).write_text(code)
    ran = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "pgtoolkit":
            assert call(*quickened(arguments)) == 0, command
            ran.append(arguments[0])
    assert ran.count("check-env") == 2 and ran.count("train") == 4
    assert Path("beam.json").is_file()
