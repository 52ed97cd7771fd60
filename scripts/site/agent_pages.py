"""A page for each agent: objective, defects avoided, curves, command and settings."""

import importlib
import re
from pathlib import Path

from pgtoolkit.scripts.cli.registry import AGENTS
from pgtoolkit.scripts.site.agent_notes import NOTES, AgentNotes
from pgtoolkit.scripts.site.curves import results_of, results_table
from pgtoolkit.scripts.site.settings_table import settings_table

EXAMPLES = {
    "reinforce": "CartPole-v1 --total-steps 200000",
    "a2c": "CartPole-v1 --total-steps 200000",
    "ppo": "Pendulum-v1 --total-steps 100000",
    "npg": "CartPole-v1 --total-steps 100000",
    "trpo": "CartPole-v1 --total-steps 100000",
    "reppo": "HalfCheetah-v5 --total-steps 400000",
    "sac": "Pendulum-v1 --total-steps 20000",
    "td3": "Pendulum-v1 --total-steps 20000",
    "apg": "pgtoolkit/Pendulum-v0",
    "shac": "pgtoolkit/Pendulum-v0",
    "sapo": "pgtoolkit/Pendulum-v0",
    "ahac": "pgtoolkit/Pendulum-v0",
    "rpo": "pgtoolkit/Pendulum-v0",
    "svg": "Pendulum-v1 --total-steps 20000",
}
"""What follows ``pgtoolkit train AGENT --env`` in the example of a page."""


def agent_pages(docs: Path) -> dict[str, str]:
    """File name below ``agents`` to text, in Markdown.

    Raises:
        KeyError: an agent of the registry has no notes.
    """
    pages = {f"{name}.md": agent_page(name, NOTES[name], docs) for name in AGENTS}
    return pages | {"index.md": index()}


def agent_page(name: str, notes: AgentNotes, docs: Path) -> str:
    """The page of one agent."""
    module = importlib.import_module(AGENTS[name].module)
    path = f"{AGENTS[name].module}.{AGENTS[name].name}"
    parts = [
        f"# {notes.title}",
        f"`{name}` follows: **{notes.gradient}**. {needs(name)}",
        f"```bash\npgtoolkit train {name} --env {EXAMPLES[name]}\n```",
        f"**When:** {notes.when}",
        "## Objective",
        f"$$\n{notes.objective}\n$$",
        f"*Source:* {notes.sources}",
        "## Defects avoided",
        "\n".join(f"- {defect}" for defect in notes.defects),
        "## What it learns",
        learned(name, docs),
        "## Settings",
        "On the command line `num_envs` is `--num-envs`; in Python all are keywords of "
        "`pgtoolkit.train`.",
        settings_table(getattr(module, f"{AGENTS[name].name}Config")),
        "## The class",
        f"```{{eval-rst}}\n.. autoclass:: {path}\n   :members: collect, update\n```",
    ]
    return "\n\n".join(parts) + "\n"


def needs(name: str) -> str:
    """What the agent asks of an environment, from its line in ``pgtoolkit list``."""
    agent = getattr(importlib.import_module(AGENTS[name].module), AGENTS[name].name)
    if agent.needs_gradient:
        return (
            "It needs a differentiable environment, or an adapter, which `--differentiate auto` "
            "chooses."
        )
    return "It needs no gradient of the environment."


def learned(name: str, docs: Path) -> str:
    """Curves and table of the agent's result files, or where its returns are."""
    results = results_of(docs / "results", name)
    if not results:
        return (
            "Its returns are in the tables of [results](../../results.md), each with the command "
            "that made it."
        )
    return "\n\n".join(
        [
            f"![Learning curves of {name}](curves/{name}.svg)",
            "*Interquartile mean over seeds of evaluations with deterministic actions; the band is "
            "from the worst to the best seed. A file of `docs/results` stands behind each "
            "panel.*",
            results_table(results),
        ]
    )


def index() -> str:
    """The first page of the agents, with a table and the order of the pages."""
    rows = [
        f"| [{NOTES[name].title}]({name}.md) | {NOTES[name].gradient} | {actions(agent.note)} |"
        for name, agent in AGENTS.items()
    ]
    table = "\n".join(["| agent | follows | `pgtoolkit list` |", "|---|---|---|", *rows])
    tree = "\n".join(["```{toctree}", ":maxdepth: 1", ":hidden:", "", *AGENTS, "```"])
    return f"# Agents\n\n{table}\n\n{tree}\n"


def actions(note: str) -> str:
    """The note of ``pgtoolkit list`` without signs that a table uses itself."""
    return re.sub(r"\|", "/", note)
