"""The database protocol of the stores, with two engines.

SQL is plain text with named parameters (``:name``), the same for both engines. Inserts of one row and point reads are
described as data (``storage.statements``), from which each engine builds its own SQL. A *unit of work* is an async
function that takes a ``Transaction``; everything it writes commits together or not at all. It awaits nothing
but that transaction (no network, no sleep, no second connection), and an engine may run it again when the
first attempt had to be rolled back, so it has no other effects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from ecomcharge.storage.statements import Insert, PointRead, TermIndex

Row = Sequence[Any]
Params = Mapping[str, object]
T = TypeVar("T")
Unit = Callable[["Transaction"], Awaitable[T]]


class Transaction(Protocol):
    async def find(self, read: PointRead, key: Row) -> Row | None:
        """The row with these values of ``read.key``, or ``None``. Concurrent reads may become one statement."""
        ...

    async def insert(self, insert: Insert, row: Row) -> bool:
        """Insert a row, its values in the order of ``insert.columns``; ``False`` if one with that key exists.

        Concurrent inserts may become one statement.
        """
        ...

    async def find_many(self, read: PointRead, keys: Sequence[Row]) -> Sequence[Row | None]:
        """``find`` for each key, in their order."""
        ...

    async def insert_many(self, insert: Insert, rows: Sequence[Row]) -> Sequence[bool]:
        """``insert`` for each row, in their order."""
        ...

    async def index_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        """Add records, pairs of an id and its terms (separated by blanks), whose rows hold these terms already."""
        ...

    async def remove_terms(self, index: TermIndex, records: Sequence[tuple[str, str]]) -> None:
        """Remove records, pairs of an id and the terms that were added with it."""
        ...

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        """The rows of a ``SELECT``."""
        ...

    async def run(self, sql: str, params: Params) -> int:
        """Change rows; returns the number of changed rows."""
        ...

    async def run_many(self, sql: str, params: Sequence[Params]) -> None:
        """Change rows by one statement with different parameters."""
        ...

    async def run_returning(self, sql: str, params: Params) -> Sequence[Row]:
        """Change rows with a statement that ends in ``RETURNING``; returns the rows of it."""
        ...


@dataclass
class DatabaseStats:
    """Counters since the start: ``units`` of work in ``commits``, point reads (``finds``) in ``find_statements``.

    Of the requests that allow a stale answer, ``replica_answers`` came from a replica. ``replica_refusals`` came from the
    primary, although there is a replica.
    """

    commits: int = 0
    units: int = 0
    finds: int = 0
    find_statements: int = 0
    replica_answers: int = 0
    replica_refusals: int = 0


class SettingWarning(NamedTuple):
    """A setting of the database server that an operator should change, with what happens otherwise."""

    setting: str
    value: str
    consequence: str
    remedy: str


class Reader(Protocol):
    engine: str

    async def find(self, read: PointRead, key: Row) -> Row | None:
        """A point read outside a transaction. It sees every write acknowledged before it was asked, unless on a replica."""
        ...

    async def rows(self, sql: str, params: Params) -> Sequence[Row]: ...

    async def rows_in_background(self, sql: str, params: Params) -> Sequence[Row]:
        """``rows`` for a statement that reads much. Other requests are served meanwhile, on SQLite too."""
        ...


class ReplicaFailed(Exception):
    """A replica did not execute a statement: the whole request must be read from the primary."""


class ReplicaReader(Reader, Protocol):
    """Reads from one replica, for one request. Its methods raise ``ReplicaFailed``."""

    async def close(self, *, has_answered: bool) -> None:
        """Give the connection back. It must be called, also after an error. ``has_answered`` is for the statistics."""
        ...


class Database(Reader, Protocol):
    """``is_distributed``: PostgreSQL with Citus, where a statement that is not about one shop asks all nodes."""

    is_distributed: bool
    stats: DatabaseStats

    async def replica_reader(self, stale_seconds: int) -> ReplicaReader | None:
        """A replica that has every write acknowledged ``stale_seconds`` ago; ``None`` if there is none, or in doubt."""
        ...

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

    async def merge_terms(self, index: TermIndex, *, all_segments: bool = False) -> bool:
        """Merge a few pages of an index of terms, so that look-ups visit fewer parts of it. ``False``: nothing is left to do.

        One step is one short transaction, or none if there is nothing to do. ``all_segments`` merges more, and commits of
        others may take longer until it is done. PostgreSQL does it itself (autovacuum).
        """
        ...

    async def overwrite_deleted(self) -> None:
        """Remove the bytes of deleted rows from the files now, where the engine can do it. Raises ``Unavailable``."""
        ...

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the database answers and can be written."""
        ...

    async def setting_warnings(self) -> Sequence[SettingWarning]:
        """The settings of the server that lose acknowledged writes or make commits slow. Raises ``Unavailable``."""
        ...

    async def close(self) -> None:
        """Finish the accepted units of work, then close the connections."""
        ...


@dataclass(frozen=True)
class Migration:
    version: int
    name: str
    sql: str
