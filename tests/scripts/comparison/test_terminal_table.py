"""The tables of a comparison within the width of a terminal."""

import io

import pytest
from rich.console import Console

from pgtoolkit.scripts.comparison.results import RunResult
from pgtoolkit.scripts.comparison.rows import Row
from pgtoolkit.scripts.comparison.table import seeds_legend
from pgtoolkit.scripts.comparison.terminal_table import cells, print_tables


def row(label: str, env: str, seeds: int = 5) -> Row:
    runs = [
        RunResult(seed, [-1234.5 - seed], 0, 499_712, 12_345.6, [], None, [], {"torch": "2.9"})
        for seed in range(seeds)
    ]
    return Row(label, "reppo", env, 3, 1, 500_000, {}, runs)


@pytest.mark.parametrize("width", [70, 80, 200])
def test_the_tables_fit_the_width_and_lose_nothing(width: int) -> None:
    """An agent's settings go on below; a name is no markup."""
    long = "reppo:estimator=score_function,learning_rate=0.001"
    rows = [row("ppo", "Pendulum-v1"), row(long, "Pendulum-v1"), row("ppo", "My[bold]-v0")]
    file = io.StringIO()
    print_tables(rows, Console(file=file, width=width))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join(file.getvalue().split())
    assert text.count("Pendulum-v1:observationof3,499,712stepsarun") == 1 and "My[bold]-v0" in text
    assert text.count("12,345.6") == 3 and "torch2.9" in text
    first = next(line.split() for line in lines if line.startswith("ppo"))
    assert first == ["ppo", "-1,236", "-1,238..-1,235", "-1,238", "-1,234", "12,345.6"]


def test_one_seed_has_no_interval_and_a_cut_episode_is_said() -> None:
    run = RunResult(0, [1.0], 1, 10, None, [], None, [], {})
    only = Row("ppo", "ppo", "E", 3, 1, 10, {}, [run])
    assert cells(only) == ["ppo (1 episodes cut off)", "1", "-", "1", "1", "-"]


@pytest.mark.parametrize(("seeds", "said"), [(1, False), (2, True), (3, True), (4, False)])
def test_an_interval_of_few_seeds_is_said_to_be_too_narrow(seeds: int, said: bool) -> None:
    """If one row has so few; of a single seed there is no interval."""
    rows = [row("ppo", "E"), row("shac", "E", seeds)]
    assert ("too narrow for so few seeds" in seeds_legend(rows)) == said
