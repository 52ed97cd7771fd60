"""Messages for a terminal: one line, of bounded length, of characters that are shown."""

from pgtoolkit.errors import LONGEST_MESSAGE, bounded


def test_a_short_sentence_is_kept() -> None:
    sentence = "there is no environment é☃: known: a, b"
    assert bounded(sentence) == sentence


def test_long_words_are_shortened_and_paths_are_not() -> None:
    path = "/" + "folder/" * 40
    assert bounded(f"no file {path}") == f"no file {path}"
    assert bounded("no file " + "a" * 3000 + " here") == f"no file {'a' * 100}[...]{'a' * 20} here"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    found = bounded("word " * 5000 + "end")
    assert len(found) <= LONGEST_MESSAGE and found.startswith("word word") and found.endswith("end")


def test_lines_and_control_characters_do_not_reach_the_terminal() -> None:
    """A newline becomes a space; others, such as a mark that turns text around, are escaped."""
    assert bounded("a\nb\tc") == "a b c"
    assert bounded("\x1b[31m \u202e \0 \ud800") == r"\x1b[31m \u202e \x00 \ud800"
