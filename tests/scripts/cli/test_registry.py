"""Names of agents on the command line."""

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import AGENTS, find_agent


@pytest.mark.parametrize("name", ["spo", "SPO", "vpg", "ddpg"])
def test_another_algorithm_is_not_taken_for_a_misspelling(name: str) -> None:
    """``vpg`` is close to ``apg``, and ``spo`` to ``ppo``; each is an algorithm of its own."""
    with pytest.raises(RequestError) as error:
        find_agent(name)
    assert "did you mean" not in str(error.value)
    assert all(agent in str(error.value) for agent in AGENTS)


@pytest.mark.parametrize(
    ("name", "meant"), [("shc", "shac"), ("reinforced", "reinforce"), ("SHAC", "shac")]
)
def test_a_misspelling_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(RequestError, match=f"did you mean `{meant}`"):
        find_agent(name)


def test_every_agent_is_found() -> None:
    assert all(find_agent(name) is AGENTS[name] for name in AGENTS)
