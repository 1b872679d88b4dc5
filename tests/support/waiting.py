"""Wait for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def eventually(read: Callable[[], T], seconds: float = 30, *, is_good: Callable[[T], bool] = bool) -> T:
    """Call ``read`` until ``is_good`` accepts its value; by default every true value. Returns the value.

    Raises ``AssertionError`` with the last value after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not is_good(found := read()):
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {found!r}"
        time.sleep(POLL_SECONDS)
    return found
