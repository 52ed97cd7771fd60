"""The API reference has every public name, once."""

from pathlib import Path

import pgtoolkit
import pgtoolkit.envs
from pgtoolkit.scripts.site.api_pages import api_pages, entry, public_names

ROOT = Path(__file__).parents[3]


def test_every_public_name_is_documented_once() -> None:
    pages = api_pages(ROOT)
    text = "\n".join(pages.values())
    for package, names in (("pgtoolkit", dir(pgtoolkit)), ("pgtoolkit.envs", dir(pgtoolkit.envs))):
        public = [name for name in names if not name.startswith("_")]
        stub = ROOT / package.replace("pgtoolkit.", "") / "__init__.pyi"
        listed = {name for _, name in public_names(stub)}
        assert len(listed) > 30
        for name in listed:
            assert name in public
            assert text.split().count(f"{package}.{name}") == 1, name


def test_the_index_lists_every_page() -> None:
    pages = api_pages(ROOT)
    index = pages.pop("index.rst")
    assert sorted(pages) == sorted(
        f"{line.strip()}.rst" for line in index.splitlines() if line.startswith("   pgtoolkit")
    )


def test_classes_functions_and_values_have_their_directives() -> None:
    assert entry("pgtoolkit", "Squashed")[0] == ".. autoclass:: pgtoolkit.Squashed"
    assert entry("pgtoolkit", "expectation")[0] == ".. autofunction:: pgtoolkit.expectation"
    assert entry("pgtoolkit.envs", "EnvSource")[0].startswith(".. auto")
