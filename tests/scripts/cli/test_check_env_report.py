"""The summary that ``pgtoolkit check-env`` prints."""

import pytest

from pgtoolkit.envs.checks.finding import Check, Finding, Status
from pgtoolkit.scripts.cli.check_env_report import print_findings, summary


def test_the_page_counts() -> None:
    """Nouns are singular or plural as their numbers require."""

    def some(status: Status, count: int) -> list[Finding]:
        return [Finding(part="horizon", check="c", status=status, finding="f")] * count

    found = [*some("fault", 1), *some("warning", 2)]
    assert summary(found) == "1 fault, 2 warnings, 0 passes"
    assert summary(some("pass", 1)) == "0 faults, 0 warnings, 1 pass"
    assert summary(some("not checked", 2)) == "0 faults, 0 warnings, 2 not checked, 0 passes"


def test_what_was_not_checked_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own status, and without meaning and advice, which it has not."""
    finding = Check("gradients", "detach").not_checked("time ran out")
    print_findings("Env-v0", [finding], 1.0)
    page = " ".join(capsys.readouterr().out.split())
    assert "not checked detach time ran out" in page
    assert "1 not checked, 0 passes" in page and "To do" not in page
