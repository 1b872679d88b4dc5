"""The browser for tests."""

from __future__ import annotations

import shutil

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
