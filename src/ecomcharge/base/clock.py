"""Time, asked once at the edge and passed on as a value."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...

    async def read(self) -> int:
        """The same, of a clock that other processes may set: it is read from the database first.

        Whoever is not inside a request takes the time from here.
        """
        ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def read(self) -> int:
        return self.now()
