"""Work that a request leaves behind when the database fails after it may have written something."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import structlog

log = structlog.get_logger()

RETRY_SECONDS: Final = 1.0


class UnfinishedRequests:
    """The tasks that go on after the answers of their requests, until the database is back. One process has one."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """``work`` must end soon after ``pause`` returned ``False``."""
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def pause(self) -> bool:
        """Wait before another attempt. ``False`` if the process stops and there is no other attempt."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await self._closing.wait()
        return not self._closing.is_set()

    async def close(self) -> None:
        """Return when the attempts in progress have ended."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _logged(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:
        log.exception("a request could not be finished")
