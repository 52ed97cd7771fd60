"""The import graph between folders, on sources made for the test and on the package itself."""

from pathlib import Path

import pytest

import pgtoolkit
from pgtoolkit.scripts.architecture.import_graph import (
    BESIDE,
    Box,
    Graph,
    box_graph,
    describe,
    imported_names,
    read_imports,
    transitive_reduction,
)

PACKAGE = Path(pgtoolkit.__file__).parent
A, B, C = (Box("pgtoolkit", name) for name in "abc")


def test_imports_in_functions_count_and_those_for_type_checkers_do_not() -> None:
    """Both forms of import give the imported module's dotted name."""
    source = """
from typing import TYPE_CHECKING
import pgtoolkit.errors
if TYPE_CHECKING:
    from pgtoolkit.rollouts.window import Window
def f():
    from pgtoolkit.networks import mlp
"""
    assert set(imported_names(source)) == {
        "typing.TYPE_CHECKING",
        "pgtoolkit.errors",
        "pgtoolkit.networks.mlp",
    }


def test_a_file_that_needs_a_folder_is_a_box_of_its_own() -> None:
    """The other files beside the folders share a box, and agents are one box."""
    graph = box_graph(
        {
            ("errors",): set(),
            ("shapes",): {("errors",)},
            ("networks", "mlp"): {("shapes",)},
            ("agent",): {("networks", "mlp")},
            ("envs", "vector"): {("agent",)},
            ("agents", "shac"): {("envs", "vector")},
        }
    )
    others, networks, agent = (Box("pgtoolkit", x) for x in (BESIDE, "networks", "agent.py"))
    assert graph == {
        others: set(),
        networks: {others},
        agent: {networks},
        Box("envs", BESIDE): {agent},
        Box("agents", ""): {Box("envs", BESIDE)},
    }


def test_an_arrow_that_a_longer_way_implies_is_left_out() -> None:
    """The arrow a -> c goes; the way a -> b -> c stays."""
    assert transitive_reduction({A: {B, C}, B: {C}, C: set()}) == {A: {B}, B: {C}, C: set()}


def test_a_cycle_is_an_error() -> None:
    """The error names the boxes of the cycle in order."""
    graph: Graph = {A: {B}, B: {C}, C: {A}}
    with pytest.raises(ValueError, match="a -> b -> c -> a"):
        transitive_reduction(graph)


def test_the_package_has_every_folder_and_each_has_a_description() -> None:
    """The links to envs, agents and scripts are followed."""
    graph = box_graph(read_imports(PACKAGE))
    assert Box("pgtoolkit", "distributions") in graph[Box("pgtoolkit", "policies")]
    assert Box("envs", "collector.py") in graph[Box("agents", "")]
    assert all(describe(PACKAGE, box, graph) for box in graph)
    assert "errors" in describe(PACKAGE, Box("pgtoolkit", BESIDE), graph)
