"""``docs/agents.md`` says what settings and results say."""

from pgtoolkit.scripts.cli.registry import AGENTS
from pgtoolkit.scripts.site.agent_guide import DOCS, agent_guide, reached
from pgtoolkit.scripts.site.agent_notes import NOTES


def test_the_page_in_the_documentation_is_up_to_date() -> None:
    """Write it anew with ``python -m pgtoolkit.scripts.site.agent_guide > docs/agents.md``."""
    assert (DOCS / "agents.md").read_text(encoding="utf-8") == agent_guide(DOCS)


def test_every_agent_has_a_section_with_its_parts() -> None:
    page = agent_guide(DOCS)
    assert page.count("\n## ") == page.count("**When:**") == page.count("$$\n\n") == len(AGENTS)
    for name in AGENTS:
        assert f"\n## {NOTES[name].title}\n" in page
        assert f"    pgtoolkit train {name} --env " in page


def test_results_of_other_settings_are_left_out() -> None:
    assert "CartPole-v1 500 in 100,000 steps (10 seeds)" in reached("trpo", DOCS)
    assert reached("reppo", DOCS).count("HalfCheetah-v5") == 1


def test_an_agent_without_a_result_says_so() -> None:
    assert reached("trpo", DOCS / "nowhere").startswith("no file yet")
