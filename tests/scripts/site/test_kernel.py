"""Commands in the site's pages print plain lines."""

import pytest

from pgtoolkit.scripts.site.kernel import prepare, print_output


class Shell:
    """What ``prepare`` uses of IPython's shell."""

    def var_expand(self, command: str, depth: int) -> str:
        return command.replace("{name}", "world")


def test_output_and_errors_are_printed_in_order_and_no_exit_code_raises(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_output("echo one; echo two >&2; exit 3")
    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_prepared_shell_asks_for_no_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shell = Shell()
    prepare(shell)
    shell.system("echo hello {name} $FORCE_COLOR")  # type: ignore[attr-defined]
    assert capsys.readouterr().out == "hello world\n"
