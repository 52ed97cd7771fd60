"""The documentation runs as it stands, and its tables are those that are measured."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from pgtoolkit.scripts.tables.estimator_rows import Row, bernoulli_rows, gaussian_rows, lqg_rows

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MAX_LINES = 15


def blocks() -> list[tuple[str, str]]:
    """Every Python block of every page, named by page and the heading that it is under."""
    found = []
    for page in PAGES:
        heading = ""
        for match in re.finditer(
            r"^#+ ([^\n]+)$|^```python\n(.*?)^```", page.read_text(), re.M | re.S
        ):
            if match[1]:
                heading = match[1]
            else:
                found.append((f"{page.name}: {heading}", match[2]))
    return found


def readme_blocks() -> list[str]:
    return re.findall(r"^```py(?:thon)?\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("code", readme_blocks())
def test_the_readmes_examples_run(code: str) -> None:
    """Each on its own."""
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
def test_examples_run_as_they_stand(name: str, code: str) -> None:
    """Each on its own, in a fresh namespace; they check themselves, and are short."""
    assert len([line for line in code.splitlines() if line.strip()]) <= MAX_LINES
    assert "assert" in code
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, name, "exec"), {"__name__": "example"})


def table_rows() -> list[list[str]]:
    """The rows of the tables that ``scripts/reference_table.py`` prints, as the page has them."""
    text = (ROOT / "docs" / "estimators.md").read_text()
    tables = text.split("| estimator | by | gradient |")[1:]
    lines = [line for table in tables for line in table.split("\n\n")[0].splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def measured() -> list[Row]:
    samples, seed = 20_000, 1
    return [
        *gaussian_rows(samples, seed),
        *bernoulli_rows(samples, seed),
        *lqg_rows(samples, seed),
    ]


def test_the_tables_are_those_of_the_script() -> None:
    """Names and exact values to the letter; what was measured within 5 standard errors of ours.

    And the unbiased estimators' means lie within 4.5 standard errors of the gradient, there and
    here; the relaxed ones' do not.
    """
    page = table_rows()
    ours = measured()
    assert [row[:2] for row in page] == [[row.estimator, row.parameter] for row in ours]
    for cells, row in zip(page, ours, strict=True):
        assert cells[2] == f"{row.true_gradient:.5g}"
        assert cells[4] == ("" if row.exact is None else f"{row.exact:.5g}")
        variance, *error = (float(number) for number in cells[5].split(" ± "))
        assert abs(row.variance - variance) < 5 * (row.variance_error + sum(error)) + 1e-12
        biased = row.estimator in ("gumbel softmax", "straight through")
        assert (abs(float(cells[3])) > 20) == biased
        assert (abs(row.mean_error) > 4.5) == biased


def test_measured_variances_are_the_exact_ones() -> None:
    """Of this page's own numbers: within 4.5 of the standard errors that it gives."""
    for cells in table_rows():
        if cells[4] and " ± " in cells[5]:
            variance, error = (float(number) for number in cells[5].split(" ± "))
            # The error is printed to one digit, so it may be half as large again.
            assert abs(variance - float(cells[4])) < 4.5 * 1.5 * error, cells
