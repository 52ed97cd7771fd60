"""Completion in bash and zsh, in the shells themselves."""

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.completion import bash as bash_completion
from pgtoolkit.scripts.cli.completion import zsh as zsh_completion
from pgtoolkit.scripts.cli.completion.words import read_words
from pgtoolkit.scripts.cli.registry import AGENTS, BENCHMARKS, COMMANDS
from pgtoolkit.scripts.completion import SHELLS, run

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh here")


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "pgtoolkit"
    path.write_text(bash_completion.script(read_words()))
    return path


def completed(script: Path, *words: str, folder: Path | None = None) -> list[str]:
    """What bash offers behind these words, of which the last one is begun."""
    code = (
        f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pgtoolkit; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-uc", code, "bash", "pgtoolkit", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stderr == ""
    return done.stdout.split()


@needs_bash
def test_bash_completes_commands_and_agents(bash: Path) -> None:
    assert set(completed(bash, "")) == {*COMMANDS, "--help", "--version"}
    assert completed(bash, "che") == ["check-env"]
    assert set(completed(bash, "train", "")) == {*AGENTS, "--help"}
    assert completed(bash, "train", "sh") == ["shac"]


@needs_bash
def test_bash_completes_options_and_their_values(bash: Path) -> None:
    assert completed(bash, "train", "shac", "--vf-ep") == ["--vf-epochs"]
    assert completed(bash, "train", "apg", "--vf-ep") == []
    assert completed(bash, "tune", "sh") == ["shac"]
    assert completed(bash, "tune", "shac", "--vf-ep") == ["--vf-epochs"]
    assert completed(bash, "tune", "shac", "--tri") == ["--trials"]
    assert completed(bash, "train", "shac", "--device", "") == ["cpu", "cuda", "auto"]
    assert completed(bash, "train", "shac", "--device", "=", "cu") == ["cuda"]
    assert completed(bash, "train", "shac", "--device", "=") == ["cpu", "cuda", "auto"]
    assert completed(bash, "train", "shac", "--env", "pgtoolkit/Pendul") == [
        "pgtoolkit/Pendulum-v0"
    ]
    assert completed(bash, "plot", "run", "--panels", "return", "v") == ["variance"]
    assert completed(bash, "compare", "--agents", "shac", "pp") == ["ppo"]


@needs_bash
def test_bash_completes_what_stands_by_position(bash: Path, tmp_path: Path) -> None:
    """Files and folders, also with a space, behind a switch, and behind an option's value."""
    (tmp_path / "my_run").mkdir()
    assert completed(bash, "resume", "my", folder=tmp_path) == ["my_run"]
    assert completed(bash, "resume", "--trust", "my", folder=tmp_path) == ["my_run"]
    assert completed(bash, "evaluate", "--episodes", "3", "my", folder=tmp_path) == ["my_run"]
    assert completed(bash, "evaluate", "--episodes", "my", folder=tmp_path) == []
    assert completed(bash, "list", "est") == ["estimators"]
    assert set(completed(bash, "benchmark", "")) == set(BENCHMARKS)
    assert completed(bash, "completion", "") == list(SHELLS)


class Zsh:
    """An interactive zsh on a terminal, with the completion loaded."""

    def __init__(self, folder: Path) -> None:
        (folder / "_pgtoolkit").write_text(zsh_completion.script(read_words()))
        rc = f"PS1='ready> '; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D\n"
        rc += "unsetopt zle_bracketed_paste beep; setopt no_list_ambiguous; LISTMAX=1000\n"
        (folder / ".zshrc").write_text(rc)
        process, self.terminal = pty.fork()
        if process == 0:
            environment = os.environ | {"ZDOTDIR": str(folder), "TERM": "dumb", "COLUMNS": "200"}
            os.chdir(folder)
            os.execvpe("zsh", ["zsh", "-d", "-i"], environment)
        self.process = process
        self.read_until("ready> ")

    def read_until(self, *expected: str, longest: float = 60.0) -> str:
        """What the terminal shows until all of these are in it, or the time is over."""
        found, end = "", time.monotonic() + longest
        while not all(word in found for word in expected) and time.monotonic() < end:
            if select.select([self.terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    found += os.read(self.terminal, 65536).decode(errors="replace")
        return found

    def complete(self, line: str, *expected: str) -> str:
        """The terminal after a line and the tabulator, and a new line.

        Raises:
            AssertionError: what is expected has not come.
        """
        os.write(self.terminal, f"{line}\t".encode())
        shown = self.read_until(*expected)
        assert all(word in shown for word in expected), shown
        os.write(self.terminal, b"\x15\r")
        self.read_until("ready> ")
        return shown

    def close(self) -> None:
        os.close(self.terminal)
        os.waitpid(self.process, 0)


@needs_zsh
def test_zsh_completes_commands_options_and_values(tmp_path: Path) -> None:
    """With what each of them means; a single match is written out."""
    shell = Zsh(tmp_path)
    try:
        shell.complete("pgtoolkit che", "check-env")
        shown = shell.complete("pgtoolkit train s", "shac", "a value function beyond it", "svg")
        assert "reinforce" not in shown
        shell.complete("pgtoolkit train shac --vf-ep", "--vf-epochs")
        shell.complete("pgtoolkit tune shac --tri", "--trials")
        shell.complete("pgtoolkit train shac --device ", "auto", "cpu", "cuda")
        shell.complete("pgtoolkit train shac --device=cu", "--device=cuda")
        shell.complete("pgtoolkit train shac --env pgtoolkit/Pendul", "pgtoolkit/Pendulum-v0")
        (tmp_path / "my_run").mkdir()
        shell.complete("pgtoolkit resume --trust my", "my_run")
        shell.complete("pgtoolkit list est", "estimators")
    finally:
        shell.close()


@needs_zsh
def test_zsh_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(zsh_completion.script(read_words()))
    subprocess.run(["zsh", "-n", str(tmp_path / "file")], check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="known: bash, zsh"):
        run(["fish"])
    with pytest.raises(RequestError, match="name the shell"):
        run([])
    run(["--help"])
    assert "completions/pgtoolkit" in capsys.readouterr().out


def test_words_are_quoted_for_the_shell() -> None:
    assert bash_completion.quoted("it's $(x)") == "'it'\\''s $(x)'"
    assert zsh_completion.rows({"a:b": "First. Second."}) == "'a\\:b:First'"
