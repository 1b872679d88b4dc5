"""What a store may ask of a database, whichever engine it is.

SQL is plain text with named parameters (``:name``), the same for both engines. A *unit of work* is an async
function that takes a ``Transaction``; everything it writes commits together or not at all. It awaits nothing
but that transaction (no network, no sleep, no second connection), and an engine may run it again when the
first attempt had to be rolled back, so it has no other effects.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

Row = Sequence[Any]
Params = Mapping[str, object]
T = TypeVar("T")
Unit = Callable[["Transaction"], Awaitable[T]]


class Transaction(Protocol):
    async def find(self, sql: str, params: Params) -> Row | None:
        """The one row of a point read (by primary key), or ``None``. Concurrent ones may be gathered."""
        ...

    async def insert(self, sql: str, params: Params) -> bool:
        """Insert one row; ``False`` if a row with that key is already there. Concurrent ones may be gathered.

        ``sql`` reads ``INSERT INTO table (columns) VALUES (:parameters) ON CONFLICT DO NOTHING RETURNING columns``.
        The returned columns bear the names of parameters and tell this row from every other row that might
        be inserted at the same moment.
        """
        ...

    async def find_many(self, sql: str, many: Sequence[Params]) -> Sequence[Row | None]:
        """``find`` for each, in their order."""
        ...

    async def insert_many(self, sql: str, many: Sequence[Row]) -> Sequence[bool]:
        """``insert`` for each, in their order. A row holds its values in the order in which ``sql`` names its parameters."""
        ...

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        """Any number of rows; also of a statement that changes some and is ``RETURNING`` them."""
        ...

    async def run(self, sql: str, params: Params) -> int:
        """Change rows; the number of rows changed."""
        ...


@lru_cache(maxsize=2048)
def numbered(sql: str, sign: str) -> tuple[str, tuple[str, ...]]:
    """The statement with ``$1`` or ``?1``, by ``sign``, for named parameters, and the names in that order.

    No SQL of ours uses ``::`` or a colon within a literal.
    """
    names = tuple(dict.fromkeys(re.findall(r":([a-z_]+)", sql)))
    return re.sub(r":([a-z_]+)", lambda match: f"{sign}{names.index(match[1]) + 1}", sql), names


@dataclass
class Load:
    """How much travelled together since the start: ``units`` of work in ``commits``, ``finds`` in ``find_statements``."""

    commits: int = 0
    units: int = 0
    finds: int = 0
    find_statements: int = 0


class Database(Protocol):
    engine: str
    load: Load

    async def find(self, sql: str, params: Params) -> Row | None:
        """A point read outside a transaction. It sees every write acknowledged before it was asked."""
        ...

    async def rows(self, sql: str, params: Params) -> Sequence[Row]: ...

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit of work and return its result once it is durable.

        Units that wait at the same moment share a commit, and the failure of one is its own. Raises what the
        unit raised, ``Unavailable`` when the database is down or full (then nothing was written), or
        ``OutcomeUnknown`` when the connection was lost during COMMIT and stayed lost.
        """
        ...

    async def migrate(self, migrations: Sequence[Migration]) -> list[Migration]:
        """Apply what is not yet applied, in order, each in its own transaction. Any number of processes may try."""
        ...

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the database answers."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go of the database."""
        ...


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str


Item = TypeVar("Item")


class Batcher(Generic[Item]):
    """Lets what arrives together travel together.

    ``carry`` takes a list of items. At most ``lanes`` lists are on their way at once; items that arrive
    meanwhile wait and share the next list, up to ``most`` of them. It never waits for company: with a lane
    free, an item leaves at the end of the current turn of the event loop.
    """

    def __init__(self, carry: Callable[[list[Item]], Awaitable[None]], lanes: int, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._carry = carry
        self._lanes = lanes
        self._most = most
        self._waiting: list[Item] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._called = False

    def add(self, item: Item) -> None:
        self._waiting.append(item)
        if not self._called and len(self._under_way) < self._lanes:
            self._called = True
            self._loop.call_soon(self._depart)

    async def drain(self) -> None:
        """Return when nothing waits and nothing is under way."""
        while self._waiting or self._under_way:
            self._depart()
            await asyncio.wait(self._under_way)

    def _depart(self) -> None:
        self._called = False
        if self._waiting and len(self._under_way) < self._lanes:
            self._under_way.add(self._loop.create_task(self._travel()))

    async def _travel(self) -> None:
        """Carry what waits, and at once what has come meanwhile: before those are resumed who were just answered."""
        try:
            while self._waiting:
                items, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._carry(items)
        finally:
            self._under_way.discard(asyncio.current_task())
            if self._waiting:
                self._depart()
