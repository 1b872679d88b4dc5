"""Collects what arrives at the same moment into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.postgres.errors import to_domain_error


def _new_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Pending:
    """Work that waits for a batch. ``outcome`` receives its result or its error."""

    outcome: asyncio.Future[Any] = field(init=False, default_factory=_new_future)

    def resolve(self, result: object) -> None:
        if not self.outcome.done():
            self.outcome.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(to_domain_error(error))


Item = TypeVar("Item", bound=Pending)


class Batcher(Generic[Item]):
    """Passes items to ``flush`` in batches of at most ``max_batch``, with at most ``max_in_flight`` batches at once.

    It does not wait for more items: while fewer batches are in flight, a batch starts at the end of the current turn of
    the event loop. Items that arrive while all are in flight form the next batch. If ``flush`` raises or is cancelled, every
    item of the batch without an outcome fails with that error. After a batch that took longer than ``stalled_seconds`` the
    items that wait are refused: PostgreSQL does not answer, and each would wait for all batches before it.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[None]],
        *,
        max_in_flight: int,
        max_batch: int,
        stalled_seconds: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stalled_seconds = stalled_seconds
        self._flush = flush
        self._max_in_flight = max_in_flight
        self._max_batch = max_batch
        self._waiting: list[Item] = []
        self._in_flight: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[None] | None = None  # it takes what waits at the end of this turn

    async def submit(self, item: Item) -> Any:
        """Return the outcome of the item."""
        self._waiting.append(item)
        if self._starting is None and len(self._in_flight) < self._max_in_flight:
            self._starting = asyncio.get_running_loop().create_task(self._flush_waiting())
            self._in_flight.add(self._starting)
        return await item.outcome

    async def drain(self) -> None:
        """Return when no item waits or is in flight."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    async def _flush_waiting(self) -> None:
        self._starting = None
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                started = self._loop.time()
                try:
                    await self._flush(batch)
                except BaseException as error:
                    for item in batch:
                        item.fail(error)
                    if not isinstance(error, Exception):
                        raise
                if self._loop.time() - started > self._stalled_seconds:
                    refused, self._waiting = self._waiting, []
                    for item in refused:
                        item.fail(Unavailable())
        finally:
            self._in_flight.remove(asyncio.current_task())  # type: ignore[arg-type]
