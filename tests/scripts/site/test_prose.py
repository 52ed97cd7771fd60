"""A page's numbers are held to what its cells compute."""

from pathlib import Path

import pytest

from pgtoolkit.scripts.site.prose import Prose, without_code

PAGE = """# A page

The variance is
1,739 here, and 84 there.

```{code-cell} python
says("the number 12 is in code alone")
```

The end.
"""


@pytest.fixture
def prose(tmp_path: Path) -> Prose:
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return Prose(path)


def test_a_phrase_of_the_page_passes_across_line_ends(prose: Prose) -> None:
    prose.says(f"variance is {1739.4:,.0f} here", "84 there")


@pytest.mark.parametrize("phrase", ["variance is 1,740 here", "the number 12", "84  not there"])
def test_another_number_or_a_number_in_code_fails(prose: Prose, phrase: str) -> None:
    with pytest.raises(AssertionError, match="does not say"):
        prose.says(phrase)


def test_the_message_shows_what_the_page_says(prose: Prose) -> None:
    with pytest.raises(AssertionError, match="variance is 1,739 here"):
        prose.says("variance is 1,800 here")


def test_code_is_left_out_and_the_rest_is_kept() -> None:
    text = without_code(PAGE)
    assert "says(" not in text
    assert text.startswith("# A page The variance") and text.endswith("there. The end.")
