"""Python blocks of pages: executed each on its own."""

import pytest

from pgtoolkit.scripts.site.blocks import run_block


def test_a_block_returns_what_it_prints() -> None:
    assert run_block("x = 2\nprint(x + 1)", "page") == "3\n"


def test_blocks_share_no_names() -> None:
    run_block("x = 2", "page")
    with pytest.raises(NameError):
        run_block("print(x)", "page")


def test_a_block_that_does_not_hold_raises_with_the_page_in_the_traceback() -> None:
    with pytest.raises(AssertionError) as raised:
        run_block("\nassert 1 == 2", "estimators, line 12")
    assert str(raised.traceback[-1].path).endswith("estimators, line 12")
