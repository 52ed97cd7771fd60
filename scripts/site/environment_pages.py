"""A page for each environment: picture, spaces, equations, gradient and what was measured."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from pgtoolkit.scripts.cli.formatting import markdown_row
from pgtoolkit.scripts.cli.registry import registered_env_ids
from pgtoolkit.scripts.tables.environment_rows import gradient_quality

CAPTION = "Six moments of one episode of a policy that was trained for 200,000 steps."
MEASURED = ("variance ratio at H = 4, 32", "usable horizon")
"""The last columns of the table in ``docs/environments.md``."""


def environment_names() -> list[str]:
    """The names of the classes that are registered as ``pgtoolkit/NAME-v0``."""
    return [name.removeprefix("pgtoolkit/").removesuffix("-v0") for name in registered_env_ids()]


def environment_pages(docs: Path) -> dict[str, str]:
    """File name below ``environments`` to text, in Markdown."""
    import pgtoolkit.envs as envs

    measured = table_rows(docs / "environments.md", "environment")
    learned = table_rows(docs / "results.md", "environment", "default")
    pages = {}
    for name in environment_names():
        pages[f"{name}.md"] = environment_page(
            name,
            getattr(envs, name)(),
            measured.get(f"`pgtoolkit/{name}-v0`", {}),
            learned.get(name, {}),
            picture=(docs / "pictures" / f"{name}.png").exists(),
        )
    return pages | {"index.md": index(measured)}


def environment_page(
    name: str, env: Any, measured: dict[str, str], learned: dict[str, str], *, picture: bool
) -> str:
    """The page of one environment; the equations are those of the class's docstring."""
    info = env.gradient
    drawn = [f"![{CAPTION}](../../pictures/{name}.png)\n\n*{CAPTION}*"] if picture else []
    parts = [
        f"# {name}",
        *drawn,
        f"```bash\npgtoolkit train shac --env pgtoolkit/{name}-v0\n```",
        "## Spaces",
        space_table("action", env.action_space),
        space_table("observation", env.observation_space),
        f"An episode has at most {env.max_episode_steps} steps. What the entries are, and the "
        "equations of the dynamics, the reward and the starts:",
        "## Equations and reward",
        f"```{{eval-rst}}\n.. autoclass:: {type(env).__module__}.{name}\n   :no-index:\n```",
        "## Gradient",
        gradient_table(gradient_quality(info), info.contacts, measured),
        *returns(learned),
    ]
    return "\n\n".join(parts) + "\n"


def gradient_table(quality: str, contacts: str, measured: dict[str, str]) -> str:
    """How accurate the derivatives are, and up to which horizon pathwise is the better one."""
    rows = [
        ("derivative of a step by action and by state, of the reward", quality),
        ("contacts", contacts),
        *(
            (heading, measured[heading].replace("|", "/"))
            for heading in MEASURED
            if heading in measured
        ),
    ]
    lines = "\n".join(markdown_row(row) for row in rows)
    return (
        f"| | |\n|---|---|\n{lines}\n\nThe variance ratio is that of the score function over "
        "pathwise, and the usable horizon is the longest up to which pathwise is the better one, "
        "both with an untrained policy ([how it is measured](../../environments.md)). `pgtoolkit "
        "variance RUN` measures it with a trained one."
    )


def returns(learned: dict[str, str]) -> list[str]:
    """The returns of the table in ``docs/results.md``, if the environment has a row there."""
    if not learned:
        return []
    rows = "\n".join(markdown_row(item) for item in learned.items())
    return [
        "## Returns after 300,000 steps",
        f"| `shac` with these settings, or `ppo` | mean ± error (runs) |\n|---|---|\n{rows}",
        "The error is the standard error of the mean over seeds, and the settings are those of "
        "[results](../../results.md#the-default-of-shac).",
    ]


def space_table(what: str, space: Any) -> str:
    """Bounds of each entry of a box; neighbours with the same bounds share a row."""
    low, high = np.ravel(space.low), np.ravel(space.high)
    entries = list(enumerate(zip(low.tolist(), high.tolist(), strict=True)))
    lines = [f"| {what} | least | greatest |", "|---|---|---|"]
    for (least, greatest), group in groupby(entries, key=lambda entry: entry[1]):
        indices = [index for index, _ in group]
        lines.append(markdown_row((span(indices), bound(least), bound(greatest))))
    return "\n".join(lines)


def span(indices: Sequence[int]) -> str:
    """``3`` or ``3 to 5``."""
    first, last = indices[0], indices[-1]
    return f"{first}" if first == last else f"{first} to {last}"


def bound(value: float) -> str:
    """A bound of a space in few digits."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


def table_rows(page: Path, *headings: str) -> dict[str, dict[str, str]]:
    """The table of a Markdown page whose head begins with these cells.

    Returns:
        The first cell of each row to its other cells by heading.

    Raises:
        ValueError: there is no such table.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    heads = [cells(line) if line.startswith("|") else [] for line in lines]
    start = next(
        (i for i, head in enumerate(heads) if tuple(head[: len(headings)]) == headings), None
    )
    if start is None:
        raise ValueError(f"{page} has no table that begins with {headings}")
    found = {}
    for row in heads[start + 2 :]:
        if not row:
            break
        found[row[0]] = dict(zip(heads[start][1:], row[1:], strict=True))
    return found


def cells(line: str) -> list[str]:
    """The cells of one line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def index(measured: dict[str, dict[str, str]]) -> str:
    """The first page of the environments."""
    lines = [
        markdown_row(("environment", "observations, actions", "steps", "usable horizon")),
        "|---|---|---|---|",
    ]
    for name in environment_names():
        row = measured.get(f"`pgtoolkit/{name}-v0`", {})
        shown = [row.get(key, "") for key in ("observations, actions", "steps", "usable horizon")]
        lines.append(markdown_row((f"[{name}]({name}.md)", *shown)))
    tree = "\n".join(["```{toctree}", ":maxdepth: 1", ":hidden:", "", *environment_names(), "```"])
    table = "\n".join(lines)
    return (
        "# The environments, one by one\n\nAll are written in torch and differentiable, and by "
        "their ids `pgtoolkit/NAME-v0` ordinary Gymnasium environments as well. "
        f"[environments.md](../../environments.md) compares them.\n\n{table}\n\n{tree}\n"
    )
