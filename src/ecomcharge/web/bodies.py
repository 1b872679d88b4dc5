"""Request bodies: their limits and their deadlines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ecomcharge.base.errors import (
    BodyTooLarge,
    BodyTooSlow,
    EcomchargeError,
)
from ecomcharge.web.messages import Request, Response, Stream

log = structlog.get_logger()


FORWARDED: Final = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of a door: the size of a body in bytes, and seconds of patience."""

    max_body_bytes: int
    body_timeout_seconds: float
    stall_timeout_seconds: float


class BodyDeadlines:
    """Ends the wait for bodies that do not come in time, to a quarter of the time (at most a second) exactly.

    One timer looks after all of them, and only while there are any: a timer for each would cost a create more
    than its validation does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[asyncio.Task[Any], float] = {}
        self._lost: set[asyncio.Task[Any]] = set()
        self._watching = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that runs, once it does

    def begin(self) -> asyncio.Task[Any]:
        """The current task begins to wait."""
        loop = self._loop
        if loop is None:  # to ask for it is a call to the system
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._until[task] = loop.time() + self._seconds
        if not self._watching:
            self._watching = True
            loop.call_later(min(1.0, self._seconds / 4), self._watch)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        del self._until[task]

    def raise_if_lost(self, task: asyncio.Task[Any]) -> None:
        """Raise ``BodyTooSlow`` if it was us who cancelled the task."""
        if task in self._lost:
            self._lost.discard(task)
            task.uncancel()
            raise BodyTooSlow

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, until in self._until.items():
            if now > until and task not in self._lost:
                self._lost.add(task)
                task.cancel()
        self._watching = bool(self._until)
        if self._watching:
            loop.call_later(min(1.0, self._seconds / 4), self._watch)


async def _joined(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """A body of unannounced length. It may end early when the client goes away: half an object is no JSON."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return bytes(body)


def _code_of_broken_answer(request: Request, error: Exception) -> str:
    """The code of an error after the answer began: its status is sent, so that only the log can say what went wrong."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(error, EcomchargeError):
            log.error("answer broke off", request_id=request.request_id, route=request.route, reason=error.message)
        else:
            log.error("answer broke off", request_id=request.request_id, route=request.route, exc_info=error)
    return error.code if isinstance(error, EcomchargeError) else "internal_error"


async def _chunks_of(response: Response | Stream) -> AsyncIterator[bytes]:
    if isinstance(response, Response):
        yield response.body
    else:
        async for chunk in response.chunks:
            yield chunk
