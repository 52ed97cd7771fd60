"""A page of the documentation in a browser, where it has been built."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ViewportSize

SITE = Path(__file__).parents[2] / "build" / "docs"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_needs_no_network_and_no_scrolling_to_the_side(
    scheme: Literal["light", "dark"], browser: Browser
) -> None:
    file = SITE / "guide" / "dashboard.html"
    if not file.exists():
        pytest.skip("the site is not built: python -m sphinx -b html docs build/docs")
    size = ViewportSize(width=400, height=1000)
    with browser.new_context(offline=True, color_scheme=scheme, viewport=size) as context:
        page, requests, messages = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(file.as_uri())
        assert messages == [] and all(url.startswith("file:") for url in requests)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.locator("h1").inner_text().startswith("Reading the dashboard")
