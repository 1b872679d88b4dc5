"""Limits how often visits of a page ask a real gateway: anybody who knows the page's address can visit it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ecomcharge.subscriptions.model import Subscription
from ecomcharge.web.rate_limits import make_room

LOOK_UP_SECONDS: Final = 3.0  # a waiting page reloads after two seconds


class LookUps:
    """Looks up each payment at most once in ``LOOK_UP_SECONDS``. Visits during a look-up share it. One per process."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._started_at: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[Subscription]] = {}

    async def look_up(self, payment_id: str, ask: Callable[[], Coroutine[Any, Any, Subscription]]) -> Subscription | None:
        """The subscription after the look-up; ``None`` if the last one is too recent. Raises what ``ask`` raises."""
        running = self._running.get(payment_id)
        if running is None:
            now = self._monotonic()
            if now - self._started_at.get(payment_id, now - LOOK_UP_SECONDS) < LOOK_UP_SECONDS:
                return None
            make_room(self._started_at)
            self._started_at[payment_id] = now
            running = self._running[payment_id] = asyncio.create_task(ask())
            running.add_done_callback(lambda _: self._running.pop(payment_id))
        return await asyncio.shield(running)  # one visitor who leaves does not end it for the others
