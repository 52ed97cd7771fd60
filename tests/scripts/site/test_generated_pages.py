"""The pages that are made from the code: one for each agent, environment and group of tags."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box

from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.scripts.cli.registry import AGENTS
from pgtoolkit.scripts.site.agent_notes import NOTES
from pgtoolkit.scripts.site.agent_pages import EXAMPLES, agent_pages
from pgtoolkit.scripts.site.curves import draw_curves, is_ablation, results_of, results_table
from pgtoolkit.scripts.site.environment_pages import (
    environment_names,
    environment_pages,
    space_table,
    table_rows,
)
from pgtoolkit.scripts.site.gallery_page import COMPUTED, FIGURES, gallery_page
from pgtoolkit.scripts.site.settings_table import field_texts, settings_table
from pgtoolkit.scripts.site.tag_page import tag_page
from pgtoolkit.training.tags import DEFINITIONS

DOCS = Path(__file__).parents[3] / "docs"


def test_every_agent_has_notes_an_example_and_a_page() -> None:
    assert set(NOTES) == set(EXAMPLES) == set(AGENTS)
    pages = agent_pages(DOCS)
    for name in AGENTS:
        page = pages[f"{name}.md"]
        assert NOTES[name].objective in page and f"pgtoolkit train {name} --env" in page
        assert f"({name}.md)" in pages["index.md"]


def test_the_agents_examples_are_settings_that_exist() -> None:
    """Flags of an example are fields of the agent's settings or of the command."""
    from pgtoolkit.scripts.cli.experiment import RunConfig
    from pgtoolkit.training.loop import TrainConfig

    command = {
        field.name for kind in (RunConfig, TrainConfig) for field in dataclasses.fields(kind)
    }
    for name, example in EXAMPLES.items():
        module = __import__(AGENTS[name].module, fromlist=["_"])
        fields = dataclasses.fields(getattr(module, f"{AGENTS[name].name}Config"))
        own = {field.name for field in fields}
        flags = {word[2:].replace("-", "_") for word in example.split() if word.startswith("--")}
        assert flags <= own | command, name


def test_the_settings_table_has_every_field_with_its_text_and_range() -> None:
    table = settings_table(ShacConfig)
    lines = table.splitlines()
    assert len(lines) == 2 + len(dataclasses.fields(ShacConfig))
    gamma = next(line for line in lines if line.startswith("| `gamma` "))
    assert "`0.98`" in gamma and "between 0 and 1" in gamma and "Discount factor." in gamma
    assert all(field_texts(ShacConfig).get(field.name) for field in dataclasses.fields(ShacConfig))


def test_a_class_that_repeats_a_field_has_its_own_text() -> None:
    """ShacConfig's ``log_std_init`` says more than that of the group that it inherits."""
    assert "high gain" in field_texts(ShacConfig)["log_std_init"]


def test_every_environment_has_a_page_with_what_was_measured() -> None:
    pages = environment_pages(DOCS)
    assert set(pages) == {f"{name}.md" for name in environment_names()} | {"index.md"}
    for name in environment_names():
        page = pages[f"{name}.md"]
        assert "usable horizon" in page and f"pgtoolkit/{name}-v0" in page
    assert "325.3 ± 31" in pages["Hopper2D.md"]


def test_entries_with_equal_bounds_share_a_row() -> None:
    space = Box(np.array([-1, -1, -np.inf], np.float32), np.array([1, 1, 0.5], np.float32))
    assert space_table("action", space).splitlines()[2:] == [
        "| 0 to 1 | -1 | 1 |",
        "| 2 | -∞ | 0.5 |",
    ]


def test_a_table_is_found_by_its_head_and_ends_at_an_empty_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("| a | b |\n|---|---|\n| 1 | 2 |\n\n| a | c |\n|---|---|\n| 3 | 4 |\n")
    assert table_rows(page, "a", "c") == {"3": {"c": "4"}}
    assert table_rows(page, "a") == {"1": {"b": "2"}}
    with pytest.raises(ValueError, match="no table"):
        table_rows(page, "x")


def test_every_tag_is_on_the_page_of_tags_once() -> None:
    page = tag_page()
    assert all(page.count(f"| `{tag}` |") == 1 for tag in DEFINITIONS)


def test_results_of_the_defaults_come_before_ablations() -> None:
    names = [result["name"] for result in results_of(DOCS / "results", "reppo")]
    kinds = [is_ablation(name) for name in names]
    assert "hopper-reppo" in names and kinds == sorted(kinds) and True in kinds
    assert results_of(DOCS / "results", "an agent without results") == []


def test_curves_and_table_of_a_result(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = results_of(DOCS / "results", "svg")
    draw_curves(results, tmp_path / "curves" / "svg.svg")
    assert (tmp_path / "curves" / "svg.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert "python scripts/reproduce.py pendulum-svg" in results_table(results)


def test_the_gallery_names_files_that_exist() -> None:
    page = gallery_page(DOCS)
    for path in (*FIGURES, *COMPUTED):
        assert (DOCS / path).exists() and path in page
