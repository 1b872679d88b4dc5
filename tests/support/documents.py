"""The documents of the project, for tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()
