"""The words of a command line: what no command takes, whichever it is."""

import re
import sys
from collections.abc import Sequence

from pgtoolkit.errors import RequestError

NUMBER = re.compile(r"[-+]?[\d_.]+(e[-+]?\d+)?", re.IGNORECASE)


def require_text(words: Sequence[str]) -> None:
    """Checks the words of a command line.

    Raises:
        RequestError: a word is empty, which as a path would be the present folder; is not text in
            the locale's encoding (Python holds its bytes as surrogates), and no file could hold it;
            has a NUL character, which no path may have; or is a number in other digits than 0 to
            9, or with underscores, which Python would read.
    """
    for before, word in zip(("", *words), words, strict=False):
        require_given(before, word)
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"{word!r} is not text in the encoding of this locale, "
                f"{sys.getfilesystemencoding()}: give another name, or set LC_ALL=C.UTF-8"
            ) from error
        if "\0" in word:
            raise RequestError(f"{word!r} has a NUL character: leave it out")
        plain = word.isascii() and "_" not in word
        if not plain and NUMBER.fullmatch(word) and any(c.isdigit() for c in word):
            raise RequestError(f"{word!r} is no number here: write it with the digits 0 to 9 alone")


def require_given(before: str, word: str) -> None:
    """Raises if a word is empty or blank, or is an option with an empty value, ``--json=``.

    Raises:
        RequestError: names the option.
    """
    flag, equals, value = word.partition("=")
    if not word.strip():
        name = before if before.startswith("--") else "an argument"
        raise RequestError(f"{name} is empty: give a value, or leave it out")
    if flag.startswith("--") and equals and not value.strip():
        raise RequestError(f"{flag} is empty: give a value, or leave it out")
