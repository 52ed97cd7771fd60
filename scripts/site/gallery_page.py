"""The gallery: figures of the site, each with the page that it comes from."""

from pathlib import Path

from pgtoolkit.scripts.site.environment_pages import CAPTION, environment_names

FIGURES = {
    "pendulum.png": ("Return and gradient variance while SHAC learns", "guide/first_agent.md"),
    "variance.png": ("Up to which horizon is pathwise usable?", "guide/which_gradient.md"),
    "gain.png": ("Why a pathwise gradient explodes", "gain.md"),
    "critic-Pendulum.png": (
        "The critic's gradient beside the exact one",
        "estimators.md#through-a-critic",
    ),
}
"""File in ``docs`` to the title of a figure and the page that explains it."""

COMPUTED = {
    "learn/policy_gradient.md": "From an expectation to a policy gradient: ten figures",
    "survey/monte_carlo.md": "Monte Carlo gradient estimation, redrawn",
    "survey/simulators.md": "Differentiable simulators, redrawn",
    "survey/pipps.md": "The curse of chaos, redrawn",
}
"""Pages whose figures are computed when the site is built."""


def gallery_page(docs: Path) -> str:
    """The page in Markdown; environments without a picture are left out."""
    parts = ["# Gallery", "## Figures that the site computes"]
    parts += [f"- [{title}](../{page})" for page, title in COMPUTED.items()]
    parts.append("## Figures of runs")
    for file, (title, page) in FIGURES.items():
        parts.append(f"[{title}](../{page})\n\n![{title}](../{file})")
    parts += ["## Every environment", CAPTION]
    for name in environment_names():
        if (docs / "pictures" / f"{name}.png").exists():
            picture = f"![An episode of {name}](../pictures/{name}.png)"
            parts.append(f"[{name}](environments/{name}.md)\n\n{picture}")
    return "\n\n".join(parts) + "\n"
