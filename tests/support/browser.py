"""A headless Chromium for tests of pages: one for the session of a module, and what it complained about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

PHONE, DESK = (390, 844), (1440, 900)
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@contextmanager
def chromium() -> Iterator[Any]:
    """Skips the test where there is no Chromium, or no Playwright to drive it."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=binary, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a context of its own, which keeps errors, messages of the console and requests that leave it."""

    def __init__(self, browser: Any, size: tuple[int, int] = DESK, theme: Literal["light", "dark"] = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce"
        )
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", lambda message: self._said(message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: self._asked(dialog))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, address: str | Path, tab: str = "") -> Any:
        """Go to an address or a file, with one of the page's tabs open; returns Playwright's page."""
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        self.page.goto(f"{url}{f'#{tab}' if tab else ''}")
        self.page.wait_for_selector("[role=tab]")
        drawn(self.page)
        return self.page

    def close(self) -> None:
        self._context.close()


def drawn(page: Any) -> None:
    """Wait until what has become visible is drawn: a chart is, in the frame after it has got a size."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
