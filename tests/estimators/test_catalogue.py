"""The catalogue: complete rows, names that agree, and an import without torch."""

import re
import subprocess
import sys
from typing import get_args

import pytest

from pgtoolkit.estimators.catalogue import (
    CATALOGUE,
    EstimatorName,
    PathwiseEstimator,
    StudyEstimator,
    rgb,
)
from pgtoolkit.estimators.signals import Signals


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_row_has_a_label_a_colour_and_a_note(name: str) -> None:
    """Each is one line, as tables and legends need."""
    row = CATALOGUE[name]
    for text in (row.label, row.note):
        assert text.strip() == text and text and "\n" not in text
    assert re.fullmatch("#[0-9a-f]{6}", row.colour)


def test_labels_and_colours_tell_the_rows_apart() -> None:
    rows = CATALOGUE.values()
    assert len({row.label for row in rows}) == len(CATALOGUE)
    assert len({row.colour for row in rows}) == len(CATALOGUE)
    assert len({rgb(row.colour) for row in rows}) == len(CATALOGUE)


def test_a_colour_in_numbers() -> None:
    assert rgb("#00ff10") == (0, 255, 16)


def test_the_literal_types_list_the_names_of_the_catalogue() -> None:
    """They are all names, and those that can use the environment's gradient, in order."""
    assert get_args(EstimatorName) == get_args(StudyEstimator) == tuple(CATALOGUE)
    paths = {"action_gradient", "path_gradient"}
    through_env = tuple(n for n in CATALOGUE if paths & {*CATALOGUE[n].needs})
    assert get_args(PathwiseEstimator) == through_env


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_estimators_beside_a_row_are_others_of_the_catalogue(name: str) -> None:
    beside = CATALOGUE[name].beside
    assert beside and set(beside) <= CATALOGUE.keys() - {name}
    assert len(set(beside)) == len(beside)


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_a_row_is_compared_with_is_measured_beside_it(name: str) -> None:
    """Otherwise the pair would never be there; and no two pairs share a group of tags."""
    row = CATALOGUE[name]
    assert row.against.keys() <= {*row.beside}
    groups = [group for found in CATALOGUE.values() for group in found.against.values()]
    assert len(set(groups)) == len(groups)


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_a_row_needs_is_a_part_of_the_signals(name: str) -> None:
    """Each needed part is an attribute of ``Signals``, so that a misspelt name is found here."""
    needs = CATALOGUE[name].needs
    assert needs
    for part in needs:
        assert hasattr(Signals, part), part


def test_the_catalogue_does_not_import_torch() -> None:
    """Otherwise `pgtoolkit list` would take seconds."""
    script = "import sys, pgtoolkit.estimators.catalogue; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
