"""Request bodies: their largest size and the time in which they must arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ecomcharge.base.errors import BodyTooLarge, BodyTooSlow


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request body."""

    max_body_bytes: int
    body_timeout_seconds: float


class BodyDeadlines:
    """Cancels tasks that wait for a request body longer than ``seconds``; late by at most a quarter of it, or one second.

    One timer checks all tasks, and runs only while there are any. A timer for each request would cost a create more
    time than its validation does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._missed: set[asyncio.Task[Any]] = set()
        self._timer_runs = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> asyncio.Task[Any]:
        """Set a deadline for the current task, and return the task."""
        loop = self._loop
        if loop is None:  # kept, because asyncio.get_running_loop makes a system call
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._deadlines[task] = loop.time() + self._seconds
        if not self._timer_runs:
            self._timer_runs = True
            loop.call_later(min(1.0, self._seconds / 4), self._check)
        return task

    def __len__(self) -> int:
        """The number of tasks that wait for a body."""
        return len(self._deadlines)

    def has_waited(self, task: asyncio.Task[Any], seconds: float) -> bool:
        """Whether the task has waited for its body for so many seconds."""
        deadline = self._deadlines.get(task)
        return deadline is not None and task.get_loop().time() - (deadline - self._seconds) >= seconds

    def stop(self, task: asyncio.Task[Any]) -> None:
        """Remove the task's deadline."""
        del self._deadlines[task]

    def raise_if_missed(self, task: asyncio.Task[Any]) -> None:
        """Raise ``BodyTooSlow`` if the task was canceled because it missed its deadline."""
        if task in self._missed:
            self._missed.discard(task)
            task.uncancel()
            raise BodyTooSlow

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if now > deadline and task not in self._missed:
                self._missed.add(task)
                task.cancel()
        self._timer_runs = bool(self._deadlines)
        if self._timer_runs:
            loop.call_later(min(1.0, self._seconds / 4), self._check)


async def join_chunks(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """A body of unknown length. Raises ``BodyTooLarge`` above ``limit`` bytes.

    It may be incomplete when the client closes the connection; the JSON decoder then rejects it.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)
