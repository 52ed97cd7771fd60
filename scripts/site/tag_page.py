"""The page with the definition of every TensorBoard tag, from the text that every run has."""

from pgtoolkit.training.tags import CONVENTIONS, DEFINITIONS

GROUPS = {
    "rollout": "Training episodes",
    "eval": "Evaluations",
    "gradient": "Gradients",
    "gradient_parameters": "Gradients of single parameters",
    "train": "Updates",
    "environment": "Environments",
    "time": "Time",
    "variational": "Variational inference",
}
"""Title of each group of tags, by the part of a tag before its first slash, in the page's order."""


def tag_page() -> str:
    """The page in Markdown.

    Raises:
        KeyError: a tag has a group without a title.
    """
    groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
    for tag, text in DEFINITIONS.items():
        groups[tag.split("/")[0]].append((tag, text))
    parts = [
        "# Every tag",
        "The x-axis counts environment steps. `{estimator}` is `score_function`, `pathwise`, "
        "`mixed` or `critic`. Every run has these definitions in TensorBoard's Text tab, too.",
    ]
    for group, title in GROUPS.items():
        if groups[group]:
            parts += [f"## {title}", table(groups[group])]
    return "\n\n".join([*parts, "## Conventions", CONVENTIONS])


def table(rows: list[tuple[str, str]]) -> str:
    """A Markdown table of tags and their definitions."""
    lines = [f"| `{tag}` | {text.replace('|', chr(92) + '|')} |" for tag, text in rows]
    return "\n".join(["| tag | definition |", "|---|---|", *lines])
