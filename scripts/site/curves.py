"""Learning curves of ``docs/results/*.json``, as figures for the agents' pages."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgtoolkit.scripts.tables.reproductions import ABLATIONS, ONCE, SAPO_ABLATIONS


def results_of(folder: Path, agent: str) -> list[dict[str, Any]]:
    """The result files of one agent, by name; those of ablations come last."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    own = [result for result in found if result["agent"] == agent]
    return sorted(own, key=lambda result: (is_ablation(result["name"]), result["name"]))


def is_ablation(name: str) -> bool:
    """Whether a result is of a choice that is taken back, and so not of the settings of now."""
    kinds = *ABLATIONS, *SAPO_ABLATIONS, *(kind for _, kind in ONCE)
    return name.endswith(tuple(f"-{kind}" for kind in kinds))


def draw_curves(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws the interquartile mean over seeds against steps, a panel for each result.

    The band is from the worst to the best seed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    columns = min(2, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(2.4 * columns, 1.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    for axis, result in zip(axes.flat, results, strict=False):
        curve = result["curves"]["steps"]
        axis.fill_between(
            curve["x"], curve["least"], curve["greatest"], color="C0", alpha=0.2, lw=0
        )
        axis.plot(curve["x"], curve["iqm"], color="C0")
        axis.set_title(result["name"], fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("environment steps", fontsize=7)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.locator_params(axis="x", nbins=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: environment, steps, seeds, returns and the command of each result."""
    lines = [
        "| environment | steps | seeds | mean return | worst, best seed | CPU s | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        seconds = sum(result["cpu_seconds"]) / len(result["cpu_seconds"])
        lines.append(
            f"| `{result['env']}` | {result['total_steps']:,} | {len(result['seeds'])} "
            f"| {result['mean']:,.4g} | {result['least']:,.4g}, {result['greatest']:,.4g} "
            f"| {seconds:,.0f} | `python scripts/reproduce.py {result['name']}` |"
        )
    return "\n".join(lines)
