"""Periodic tasks of a server process, and the deletion of old records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.customers import store as customers
from ecomcharge.customers.actions import index_customers
from ecomcharge.events import store as events
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.web import idempotency
from ecomcharge.webhooks import store as webhooks

log = structlog.get_logger()

DELETED_PER_COMMIT: Final = 500
PAUSE_SECONDS: Final = 0.1  # between two commits, so that requests can commit
MERGES_PER_ROUND: Final = 500
PAUSE_AFTER_MERGE_SECONDS: Final = 0.05  # one takes 3 ms of processor time at most


async def every(seconds: float, task: Callable[[], Awaitable[None]]) -> None:
    """Run a task again and again, with a pause before each run. An error is logged, and the next run tries again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await task()
        except EcomchargeError as error:
            log.warning("housekeeping put off", reason=error.code)
        except Exception:
            log.exception("housekeeping failed")


class ErasedBytes:
    """Removes the bytes of erased customers from the files of the database, once after each erasure.

    PostgreSQL does it itself.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last_erasure: int | None = None  # UTC milliseconds, of the last one whose bytes are gone

    async def remove(self) -> None:
        if self._database.engine == "postgresql":
            return
        last_erasure = await customers.last_erasure(self._database)
        if last_erasure != self._last_erasure:
            await self._database.overwrite_deleted()
            self._last_erasure = last_erasure


async def delete_old_records(database: Database, clock: Clock) -> None:
    """Delete idempotency keys older than a day, and events and webhooks older than thirty days, a few in each commit."""
    await index_customers(database)  # a server of the previous release may have written some during an upgrade
    for shop in await shops.all_shops(database):
        for delete_some in (idempotency.forget_some_old, events.forget_some_old, webhooks.forget_some_old):
            deleted = DELETED_PER_COMMIT
            while deleted == DELETED_PER_COMMIT:
                now = await clock.read()  # before each transaction, because another process may set a sandbox clock back
                deleted = await delete_some(database, shop.shop_id, now, DELETED_PER_COMMIT)
                await asyncio.sleep(PAUSE_SECONDS if deleted else 0)


async def merge_search_index(database: Database) -> None:
    """Merge parts of the search index that commits have added, so that look-ups visit few of them. A limited number of steps."""
    for _ in range(MERGES_PER_ROUND):
        if not await database.merge_terms(customers.SEARCH):
            return
        await asyncio.sleep(PAUSE_AFTER_MERGE_SECONDS)
