"""The clock. Code reads it once, at the edge, and passes the time on as a value."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    async def read(self) -> int:
        """The current time, read from the database first for a clock that other processes may set.

        Code outside a request uses this method.
        """
        ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def read(self) -> int:
        return self.now()
