"""``pgtoolkit completion SHELL``: what completes commands, options and values in a shell."""

from collections.abc import Sequence

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import lookup

SHELLS = ("bash", "zsh")

HELP = """\
example:
  pgtoolkit completion bash

usage: pgtoolkit completion bash|zsh

Prints what completes commands, agents, options and their values in a shell.

bash, once and for all (with the package bash-completion):
  mkdir -p ~/.local/share/bash-completion/completions
  pgtoolkit completion bash \\
    > ~/.local/share/bash-completion/completions/pgtoolkit

zsh, once and for all, with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc:
  mkdir -p ~/.zfunc
  pgtoolkit completion zsh > ~/.zfunc/_pgtoolkit

In the present shell:
  source <(pgtoolkit completion bash)

After an update of pgtoolkit print it again."""


def run(arguments: Sequence[str]) -> None:
    """Prints the completion of a shell.

    Raises:
        RequestError: no shell is named, or it is another one.
    """
    if "-h" in arguments or "--help" in arguments:
        print(HELP)
        return
    if len(arguments) != 1:
        raise RequestError("name the shell: pgtoolkit completion bash (or zsh)")
    lookup(arguments[0], dict.fromkeys(SHELLS), "shell")
    from pgtoolkit.scripts.cli.completion import bash, zsh
    from pgtoolkit.scripts.cli.completion.words import read_words

    script = bash.script if arguments[0] == "bash" else zsh.script
    print(script(read_words()), end="")


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
