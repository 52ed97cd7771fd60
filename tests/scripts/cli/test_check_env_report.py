"""The summary that ``pgtoolkit check-env`` prints."""

from pgtoolkit.envs.checks.finding import Finding, Status
from pgtoolkit.scripts.cli.check_env_report import summary


def test_the_page_counts() -> None:
    """Nouns are singular or plural as their numbers require."""

    def some(status: Status, count: int) -> list[Finding]:
        return [Finding(part="horizon", check="c", status=status, finding="f")] * count

    found = [*some("fault", 1), *some("warning", 2)]
    assert summary(found) == "1 fault, 2 warnings, 0 passes"
    assert summary(some("pass", 1)) == "0 faults, 0 warnings, 1 pass"
