"""What every store offers to list, the walk through all of it, and the shapes that units of work have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol, TypeVar

from ecomcharge.storage.database import Database, Params, Unit

PER_CHUNK: Final = 200


class Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Identified)
T = TypeVar("T")


class Records(Protocol[R]):
    """Records of one kind, in order of creation."""

    async def after(self, after: str, limit: int) -> list[R]:
        """The first ones past an id. Every id is past the empty string."""
        ...

    async def before(self, before: str, limit: int) -> list[R]:
        """The last ones short of an id."""
        ...

    async def page(self, offset: int, limit: int) -> list[R]: ...


async def chunks_of(records: Records[R]) -> AsyncIterator[list[R]]:
    """All of them, a chunk at a time; memory holds one chunk."""
    last = ""
    while True:
        chunk = await records.after(last, PER_CHUNK)
        if chunk:
            await asyncio.sleep(0)  # ends the turn: whoever takes the chunk may take its time
            yield chunk
        if len(chunk) < PER_CHUNK:
            return
        last = chunk[-1].id


class IdCollision(Exception):
    """Another process minted the same id in the same millisecond."""


async def retry_on_id_collision(database: Database, unit: Unit[T]) -> T:
    """Run a unit of work that mints ids, and again while it raises ``IdCollision``."""
    while True:
        try:
            return await database.write(unit)
        except IdCollision:
            continue


async def execute(database: Database, sql: str, params: Params) -> int:
    """Change rows, in a unit of work of its own; the number of rows changed."""
    return await database.write(lambda tx: tx.run(sql, params))
