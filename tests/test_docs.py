"""The documentation runs as it stands, and its tables are those that are measured."""

import ast
import contextlib
import io
import math
import pkgutil
import re
from pathlib import Path

import pytest

from pgtoolkit.scripts.tables.coverage_rows import SIZES, coverage_laws
from pgtoolkit.scripts.tables.estimator_rows import Row, bernoulli_rows, gaussian_rows, lqg_rows
from pgtoolkit.scripts.tables.verdict_problems import problems

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
def test_the_readmes_examples_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example runs on its own, in a folder of its own, where its runs go."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("name", "code"), blocks(), ids=[name for name, _ in blocks()])
def test_examples_run_as_they_stand(name: str, code: str) -> None:
    """Each on its own, in a fresh namespace; they check themselves, and are short."""
    assert len([line for line in code.splitlines() if line.strip()]) <= MAX_LINES
    assert "assert" in code
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, name, "exec"), {"__name__": "example"})


def table_rows() -> list[list[str]]:
    """The rows that ``scripts/studies/reference_table.py`` prints, as the page has them."""
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
    here; those of the relaxed ones and of a wrong critic do not.
    """
    page = table_rows()
    ours = measured()
    assert [row[:2] for row in page] == [[row.estimator, row.parameter] for row in ours]
    for cells, row in zip(page, ours, strict=True):
        assert cells[2] == f"{row.true_gradient:.5g}"
        assert cells[4] == ("" if row.exact is None else f"{row.exact:.5g}")
        variance, *error = (float(number) for number in cells[5].split(" ± "))
        assert abs(row.variance - variance) < 5 * (row.variance_error + sum(error)) + 1e-12
        off_critic = row.estimator.endswith("(biased)") and row.parameter != "sigma"
        biased = row.estimator in ("gumbel softmax", "straight through") or off_critic
        assert (abs(float(cells[3])) > 20) == biased
        assert (abs(row.mean_error) > 4.5) == biased


def test_measured_variances_are_the_exact_ones() -> None:
    """The page's measured variances are within 4.5 of its own standard errors of the exact ones."""
    for cells in table_rows():
        if cells[4] and " ± " in cells[5]:
            variance, error = (float(number) for number in cells[5].split(" ± "))
            # The error is printed to one digit, so it may be half as large again.
            assert abs(variance - float(cells[4])) < 4.5 * 1.5 * error, cells


NAMING_PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
"""Pages whose names of files, functions and classes must exist."""
FOLDERS = ("", "pgtoolkit", "envs", "scripts")
"""Folders to which a path in a page may be relative."""


def code_spans(page: str) -> list[str]:
    """The page's text in backticks, outside fenced blocks."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)
    return re.findall(r"`([^`]+)`", text)


def named_paths(page: str) -> set[str]:
    """Files and folders that the page names, also inside commands; of ``NAME.py`` its folder."""
    words = (word for span in code_spans(page) for word in span.split())
    paths = (word for word in words if re.fullmatch(r"[\w./]+(\.(py|pyi|md|png|toml|sh)|/)", word))
    paths = (re.sub(r"[^/]*NAME.*", "", path) for path in paths)
    return {path for path in paths if "/" in path}


def defined_names(*more: str) -> set[str]:
    """All that the source defines: ``name``, and ``Class.name`` for what a class has.

    Args:
        more: folders to look into beside the source.
    """
    found: set[str] = set()
    for folder in ("pgtoolkit", "envs", "agents", "scripts", *more):
        for path in (ROOT / folder).rglob("*.py"):
            found.add(path.stem)
            for node in ast.walk(ast.parse(path.read_text())):
                names = names_in(node)
                found |= names
                if isinstance(node, ast.ClassDef):
                    inside = (name for child in ast.walk(node) for name in names_in(child))
                    found |= {f"{node.name}.{name}" for name in inside}
    return found


def names_in(node: ast.AST) -> set[str]:
    """The name that one node of the syntax tree defines, if it does."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        return {node.id if isinstance(node, ast.Name) else node.attr}
    return {node.arg} if isinstance(node, ast.arg) else set()


@pytest.mark.parametrize("page", NAMING_PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """Relative to the repository, to the core, or to a layer."""
    paths = named_paths(page)
    assert len(paths) > 10
    found = {path for path in paths if any((ROOT / start / path).exists() for start in FOLDERS)}
    assert paths - found == set()


@pytest.mark.parametrize("page", NAMING_PAGES)
def test_every_name_of_code_that_a_page_names_exists(page: str) -> None:
    """``function``, ``Class`` and ``Class.attribute``; single letters are sizes."""
    spans = {span.removesuffix("()") for span in code_spans(page)}
    names = {span for span in spans if re.fullmatch(r"[A-Za-z]\w+(\.[A-Za-z_]\w*)*", span)}
    names = {name for name in names if not re.search(r"\.(py|yaml|md|toml|pyi)$|^N(ame|AME)", name)}
    assert len(names) > 10
    modules = {name for name in names if name.split(".")[0] in ("pgtoolkit", "torch")}
    for name in modules:
        pkgutil.resolve_name(name)
    defined = defined_names() if page.startswith("docs") else defined_names("tests")
    assert names - modules - defined == set()


@pytest.mark.parametrize("page", NAMING_PAGES)
def test_a_name_is_in_the_file_that_the_page_says(page: str) -> None:
    """A page says so by "`name` in `file.py`", "`name` of `file.py`" or "`name` (`file.py`)"."""
    text = re.sub(r"\s+", " ", (ROOT / page).read_text())
    pairs = re.findall(r"`([\w.]+)` (?:in |of |\()`([\w/.]+\.pyi?)`", text)
    assert len(pairs) > 4
    for name, path in pairs:
        assert re.search(rf"\b{name.rpartition('.')[2]}\b", (ROOT / path).read_text()), (name, path)


def test_every_test_that_stands_for_a_claim_exists() -> None:
    """``docs/reliability.md`` names files, and test functions, that hold what it says."""
    spans = code_spans("docs/reliability.md")
    tests = {span for span in spans if re.fullmatch(r"test_\w+", span)}
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert len(tests) > 5
    assert {name for name in tests if f"def {name}(" not in written} == set()
    paths = {
        span for span in spans if re.fullmatch(r"(tests|scripts|pgtoolkit)/[\w/]+(\.py)?", span)
    }
    assert len(paths) > 10
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_a_name_that_does_not_exist_would_be_seen() -> None:
    """An unknown function or attribute is not among the names that the source defines."""
    names = defined_names()
    assert {"window_objective", "Signals.action_gradient", "ValueLearner.lagged"} <= names
    assert not {"no_such_function", "Signals.segment_end_"} & names


def rows_after(title: str) -> list[list[str]]:
    """The cells of the table in ``docs/estimators.md`` whose head begins with these cells."""
    text = (ROOT / "docs" / "estimators.md").read_text()
    lines = text.split(title)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_intervals_has_the_scripts_laws_and_keeps_its_promise() -> None:
    """Coverage of nine in ten, wherever more than one batch in fifty has an interval."""
    page = rows_after("\n| law |")
    assert [cells[0] for cells in page] == list(coverage_laws())
    for name, *cells in page:
        assert len(cells) == 2 * len(SIZES)
        for cell in cells:
            covered, shown = (0.0, 0.0) if cell == "none" else cell.rstrip(")").split(" (")
            assert float(covered) >= 90 or float(shown) <= 2, name


def test_the_tables_of_the_verdicts_errors_have_the_scripts_problems() -> None:
    """Both tables; and with 1000 trajectories hardly any verdict is wrong."""
    page = rows_after("\n| problem |")
    found = {cells[0]: [float(x) for x in cells[-3:]] for cells in page}
    for name, make in problems().items():
        assert max(found[name]) <= 1
        problem = make()
        share, ratio = (next(c[k] for c in page if c[0] == name) for k in (2, 1))
        assert share == f"{problem.bias_share:.2g}"
        assert ratio == ("" if math.isnan(problem.ratio) else f"{problem.ratio:.2g}")
