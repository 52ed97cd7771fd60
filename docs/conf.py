"""Sphinx's settings: `python -m sphinx -W --keep-going -b html docs build/docs`.

Pages are Markdown. Those that begin with a notebook's header are executed by myst-nb, the Python
blocks of all others by `pgtoolkit.scripts.site.extension`, which also writes `docs/generated`.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from pgtoolkit.version import __version__

DOCS = Path(__file__).parent

# The kernels that execute the pages inherit these: one thread, figures as SVG in one style.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["COLUMNS"] = "90"
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["MATPLOTLIBRC"] = str(DOCS / "matplotlibrc")
os.environ["IPYTHONDIR"] = ipython = tempfile.mkdtemp(prefix="pgtoolkit-docs-")
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
(Path(ipython) / "profile_default").mkdir()
(Path(ipython) / "profile_default" / "ipython_kernel_config.py").write_text(
    "c = get_config()\n"
    "c.InlineBackend.figure_formats = {'svg'}\n"
    "c.InlineBackend.rc = {}\n"
    "c.InteractiveShellApp.exec_lines = [\n"
    "    'from pgtoolkit.scripts.site.kernel import prepare; prepare(get_ipython()); del prepare'\n"
    "]\n",
    encoding="utf-8",
)
atexit.register(shutil.rmtree, ipython, ignore_errors=True)

project = "pgtoolkit"
author = "the pgtoolkit developers"
html_show_copyright = False
release = version = __version__
language = "en"
smartquotes = False

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "pgtoolkit.scripts.site.extension",
]
exclude_patterns = ["results"]
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
linkcheck_timeout = 20
linkcheck_retries = 2

# Pages fail to build if a cell raises.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "image/svg+xml", 1)]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "literal"
highlight_language = "none"
mathjax_path = "mathjax/tex-chtml.js"

html_theme = "furo"
html_title = "pgtoolkit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f69b4",
        "color-brand-content": "#1f69b4",
        "font-stack": "system-ui, sans-serif",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7db8f0",
        "color-brand-content": "#7db8f0",
    },
}
