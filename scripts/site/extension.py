"""The site's Sphinx extension: pages made from the code, and executed examples."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes

from pgtoolkit.scripts.cli.registry import AGENTS
from pgtoolkit.scripts.site.agent_pages import agent_pages
from pgtoolkit.scripts.site.api_pages import api_pages
from pgtoolkit.scripts.site.blocks import run_block
from pgtoolkit.scripts.site.curves import draw_curves, results_of
from pgtoolkit.scripts.site.environment_pages import environment_pages
from pgtoolkit.scripts.site.gallery_page import gallery_page
from pgtoolkit.scripts.site.tag_page import tag_page
from pgtoolkit.scripts.site.writing import write_changed


def write_generated(app: Any) -> None:
    """Writes ``docs/generated``. An unchanged page keeps its time, so that it is not read again."""
    docs = Path(app.srcdir)
    generated = docs / "generated"
    write_changed(generated / "api", api_pages(docs.parent))
    write_changed(generated / "agents", agent_pages(docs))
    write_changed(generated / "environments", environment_pages(docs))
    write_changed(generated, {"tags.md": tag_page(), "gallery.md": gallery_page(docs)})
    for agent in AGENTS:
        if results := results_of(docs / "results", agent):
            draw_curves(results, generated / "agents" / "curves" / f"{agent}.svg")


def execute_blocks(app: Any, tree: nodes.document) -> None:
    """Executes every Python block of a page that is no notebook; what it prints follows it."""
    docname = app.env.docname
    if docname.startswith("generated/") or tree.get("nb_kernelspec"):
        return
    for block in list(tree.findall(nodes.literal_block)):
        if block.get("language") != "python":
            continue
        printed = run_block(block.astext(), f"{docname}, line {block.line}")
        if printed:
            output = nodes.literal_block(printed, printed, language="none", classes=["printed"])
            block.parent.insert(block.parent.index(block) + 1, output)


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """Copies MathJax and its fonts beside the pages, so that they need no network.

    The package has every variant of MathJax; this is the one that ``mathjax_path`` names.
    """
    if error is not None or app.builder.format != "html":
        return
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    assert package is not None and package.origin is not None
    source = Path(package.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    fonts = Path("output") / "chtml" / "fonts"
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy(source / "tex-chtml.js", target)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("builder-inited", write_generated)
    app.connect("doctree-read", execute_blocks)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
