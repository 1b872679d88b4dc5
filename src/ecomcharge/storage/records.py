"""The protocol of stored records, the iteration over all of them, and common units of work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol, TypeVar

from ecomcharge.storage.database import Database, Params, Unit

PER_CHUNK: Final = 200  # records


class Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Identified)
T = TypeVar("T")


class Records(Protocol[R]):
    """Records of one kind, in order of creation."""

    async def after(self, after: str, limit: int) -> list[R]:
        """The first ``limit`` records after an id. Every id is after the empty string."""
        ...

    async def before(self, before: str, limit: int) -> list[R]:
        """The last ``limit`` records before an id."""
        ...

    async def page(self, offset: int, limit: int) -> list[R]: ...


async def chunks_of(records: Records[R]) -> AsyncIterator[list[R]]:
    """All records, in chunks; memory holds one chunk at a time."""
    last = ""
    while True:
        chunk = await records.after(last, PER_CHUNK)
        if chunk:
            await asyncio.sleep(0)  # lets other tasks run, even if the consumer never waits
            yield chunk
        if len(chunk) < PER_CHUNK:
            return
        last = chunk[-1].id


class IdCollision(Exception):
    """Another process generated the same id in the same millisecond."""


async def retry_on_id_collision(database: Database, unit: Unit[T]) -> T:
    """Run a unit of work that generates ids; repeat it while it raises ``IdCollision``."""
    while True:
        try:
            return await database.write(unit)
        except IdCollision:
            continue


async def execute(database: Database, sql: str, params: Params) -> int:
    """Run one statement in its own unit of work. Returns the number of changed rows."""
    return await database.write(lambda tx: tx.run(sql, params))
