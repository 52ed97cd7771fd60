"""``docs/agents.md``: all agents on one page, from their notes, settings and results.

``python -m pgtoolkit.scripts.site.agent_guide > docs/agents.md`` writes it.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from pgtoolkit.scripts.cli.formatting import format_number, markdown_row
from pgtoolkit.scripts.cli.help.examples import EXAMPLES
from pgtoolkit.scripts.cli.registry import AGENTS
from pgtoolkit.scripts.site.agent_notes import NOTES
from pgtoolkit.scripts.site.agent_pages import EXAMPLES as RUNS
from pgtoolkit.scripts.site.agent_pages import needs
from pgtoolkit.scripts.site.curves import is_ablation, results_of
from pgtoolkit.scripts.tables.reproductions import LONG

DOCS = Path(__file__).resolve().parents[2] / "docs"

HEAD = """\
# Agents

What each agent does, when to use it, its objective, the paper, the settings that matter most with
their defaults, and what it has reached. `pgtoolkit train AGENT --help` has all settings; for some
environments they start from a preset, a file in `scripts/presets`. Returns are means over seeds of
the last policy in 100 deterministic episodes, from the files behind [results](results.md), which
has the command of each.
"""


def agent_guide(docs: Path) -> str:
    """The page, in Markdown."""
    return "\n\n".join([HEAD.strip(), overview(), *(section(name, docs) for name in AGENTS)]) + "\n"


def overview() -> str:
    """A table: agent, gradient, and what it needs."""
    rows = [
        markdown_row([f"[{name}](#{NOTES[name].title.lower()})", NOTES[name].gradient, short(name)])
        for name in AGENTS
    ]
    return "\n".join([markdown_row(["agent", "follows", "needs"]), "|---|---|---|", *rows])


def short(name: str) -> str:
    """What an agent needs, in a few words."""
    agent = getattr(importlib.import_module(AGENTS[name].module), AGENTS[name].name)
    return "a slope of the environment" if agent.needs_gradient else "steps alone"


def section(name: str, docs: Path) -> str:
    """One agent."""
    notes = NOTES[name]
    return "\n\n".join(
        [
            f"## {notes.title}",
            f"`{name}` follows: {notes.gradient}. {needs(name)}",
            f"**When:** {notes.when}",
            f"$$\n{notes.objective}\n$$",
            f"**Source:** {notes.sources}",
            f"**Settings:** {settings(name)}",
            f"**Reached:** {reached(name, docs)}",
            f"    pgtoolkit train {name} --env {RUNS[name]}",
        ]
    )


def settings(name: str) -> str:
    """The agent's own settings that its help shows first, with their defaults."""
    kind: Any = getattr(importlib.import_module(AGENTS[name].module), f"{AGENTS[name].name}Config")
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    found = [first for first in EXAMPLES["train"].first if first in defaults]
    return ", ".join(f"`{first}` {value_text(defaults[first])}" for first in found)


def value_text(value: object) -> str:
    """A default as it would be given."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def reached(name: str, docs: Path) -> str:
    """The mean return on each environment with a result of the agent's chosen settings.

    Not of the long runs on this package's environments, which serve a comparison.
    """
    results = [r for r in results_of(docs / "results", name) if not is_ablation(r["name"])]
    results = [r for r in results if not r["name"].endswith(LONG)]
    if not results:
        return "no file yet; [tables of other measurements](results.md)"
    return "; ".join(
        f"{r['env']} {format_number(r['mean'], 4)} in {r['total_steps']:,} steps "
        f"({len(r['seeds'])} seed{'s' if len(r['seeds']) > 1 else ''})"
        for r in results
    )


if __name__ == "__main__":
    print(agent_guide(DOCS), end="")
