"""The browser for tests, and what a buyer does in it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from support.checkout import card_fields

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """The path of Chromium or Chrome, or ``None`` when this machine has neither."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def fill(page: Page, number: str, **chosen: str) -> None:
    for name, text in card_fields(number, **chosen).items():
        if page.locator(f"#{name}").count():
            page.locator(f"#{name}").fill(text)


def press_pay(page: Page) -> None:
    page.locator("form.payment button").click()
