"""Numbers in the prose of an executed page, held to the numbers that the page computes."""

import re
from pathlib import Path
from typing import final


@final
class Prose:
    """The text of a page without its code, for cells that check what it says.

    A hidden cell of the page writes a part of a sentence with the number that was just computed,
    and the build fails if the page says something else::

        says = Prose("page.md").says
        says(f"a variance of {variance:.0f}")

    Args:
        path: the page, in Markdown or as a notebook's JSON.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.text = without_code(self.path.read_text(encoding="utf-8"))

    def says(self, *parts: str) -> None:
        """Raises unless every part stands in the page's text; white space counts as one space.

        Raises:
            AssertionError: one does not; the message has it, and the text that is most like it.
        """
        for part in parts:
            wanted = " ".join(part.split())
            if wanted not in self.text:
                raise AssertionError(
                    f"{self.path} does not say {wanted!r}. It says: {self.nearest(wanted)!r}"
                )

    def nearest(self, part: str) -> str:
        """The stretch of the text that shares the longest beginning with the part."""
        for length in range(len(part), 3, -1):
            at = self.text.find(part[:length])
            if at >= 0:
                return self.text[at : at + len(part) + 20]
        return "nothing like it"


def without_code(text: str) -> str:
    """The page's text without fenced blocks of code, with single spaces."""
    text = re.sub(r"^```(?!\{(?:note|tip|list-table)).*?^```$", "", text, flags=re.M | re.S)
    return " ".join(text.split())
