"""Reads from a standby that is known to have every write that was acknowledged some seconds ago. In doubt the primary is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from ecomcharge.base.settings import Pooler
from ecomcharge.storage.database import DatabaseStats, Params, ReplicaFailed, Row
from ecomcharge.storage.postgres.connecting import Connection, Connector, TimeLimits, probe
from ecomcharge.storage.postgres.errors import LOG_AGAIN_SECONDS, OutageLog, explain
from ecomcharge.storage.postgres.pool import BROKEN, ConnectionPool
from ecomcharge.storage.postgres.positions import NOTE_SECONDS, OF_PRIMARY, OF_STANDBY, Position, Positions
from ecomcharge.storage.postgres.statements import numbered, select_one
from ecomcharge.storage.postgres.url import ConnectionSettings
from ecomcharge.storage.statements import PointRead

log = structlog.get_logger()

ANSWER_SECONDS: Final = 1.0  # for a connection and the position of the replica
STATEMENT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 5.0  # a replica that failed is not asked in this time, and then not by a request

_LIMITS: Final = TimeLimits(
    statement_seconds=STATEMENT_SECONDS, list_seconds=STATEMENT_SECONDS, recovery_seconds=STATEMENT_SECONDS
)


class Replica:
    """One standby, or one of several: each connection is checked by itself before a request reads with it.

    A replica that fails is left. Then a background task tries it every ``RETRY_SECONDS``, and no request waits for it.
    """

    def __init__(
        self, settings: ConnectionSettings, size: int, pooler: Pooler, primary: ConnectionPool, stats: DatabaseStats
    ) -> None:
        timeout = min(settings.connect_timeout_seconds, ANSWER_SECONDS)
        self._settings = replace(settings, connect_timeout_seconds=timeout)
        self._size = size
        self._primary = primary
        self._stats = stats
        self._pooler = pooler
        self._is_pooled = False
        self._positions = Positions()
        self._identity: Row = ()  # of the primary, when its position was noted last
        self._pool: ConnectionPool | None = None  # None while the replica is not used
        self._loop = asyncio.get_running_loop()
        self._retry_at = 0.0  # by the clock of the event loop
        self._reason = ""  # why it is not used, as it was logged
        self._lag_logged_at = -LOG_AGAIN_SECONDS
        self.outages = OutageLog("the replica refuses work")
        self._closing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._pool is not None:
            await self._pool.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def reader(self, stale_seconds: int) -> ReplicaReader | None:
        """A connection to a standby with every write that was acknowledged ``stale_seconds`` ago, or ``None``."""
        reader = await self._fresh_reader(stale_seconds)
        if reader is None:
            self._stats.replica_refusals += 1
        return reader

    async def _fresh_reader(self, stale_seconds: int) -> ReplicaReader | None:
        pool, now = self._pool, self._loop.time()
        if pool is None:
            return None
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = await stack.enter_async_context(pool.lend())
                    if self._is_pooled:  # otherwise each statement may go to another server
                        await stack.enter_async_context(connection.transaction(readonly=True))
                    replayed = await self._replayed(connection)
                complete_at = self._positions.time_of(replayed)
                if complete_at is not None and now - complete_at <= stale_seconds:
                    return ReplicaReader(self, pool, connection, stack.pop_all(), self._stats)
        except Exception as error:
            if not (isinstance(error, TimeoutError) and pool.is_exhausted):
                self.leave(pool, error)
        else:
            self._log_lag(None if complete_at is None else now - complete_at)
        return None

    async def _replayed(self, connection: Connection) -> Position:
        """Raises ``_NotAStandby``."""
        is_standby, timeline, location, *identity = await connection.fetchrow(OF_STANDBY)
        if not is_standby:
            raise _NotAStandby("it is not a standby")
        if tuple(identity) != self._identity:
            raise _NotAStandby("it is not a copy of this database")
        if timeline is None or location is None:
            raise _NotAStandby("it does not report its position")
        return Position(timeline, location)

    async def _watch(self) -> None:
        while True:
            asked_at = self._loop.time()
            with contextlib.suppress(Exception):  # the pool of the primary logs it
                async with self._primary.lend() as connection:
                    timeline, location, *identity = await connection.fetchrow(OF_PRIMARY)
                self._identity = tuple(identity)
                self._positions.note(asked_at, Position(timeline, location))
            if self._pool is None and self._identity and self._loop.time() >= self._retry_at:
                await self._try()
            await asyncio.sleep(NOTE_SECONDS)

    async def _try(self) -> None:
        """Use the replica if it answers. Its pool then has a connection, and knows the host that answers."""
        pool = None
        try:
            connection, settings = await probe(self._settings)
            try:
                self._is_pooled = self._pooler == "transaction" or (
                    self._pooler == "auto" and await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid()
                )
            finally:
                connection.terminate()
            connector = Connector(settings, limits=_LIMITS, in_transactions=self._is_pooled)
            pool = ConnectionPool(connector, self._size, of_standby=True)
            async with asyncio.timeout(connector.connect_timeout_seconds + ANSWER_SECONDS), pool.lend() as connection:
                await self._replayed(connection)
        except Exception as error:
            self._wait_to_retry(pool, error)
        else:
            self._pool = pool  # not before: requests would wait for hosts that do not answer
            self._reason = ""
            log.info("the replica is used")

    def leave(self, pool: ConnectionPool, error: Exception) -> None:
        """Do not use the replica for ``RETRY_SECONDS``. ``pool`` is the one that failed; a newer one stays in use."""
        if pool is self._pool:
            self._pool = None
            self._wait_to_retry(pool, error)

    def _wait_to_retry(self, pool: ConnectionPool | None, error: Exception) -> None:
        self._retry_at = self._loop.time() + RETRY_SECONDS
        if pool is not None:
            closing = asyncio.create_task(pool.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        reason = explain(error)
        if reason != self._reason:
            self._reason = reason
            log.warning("the replica is not used", reason=reason, retry_seconds=RETRY_SECONDS)

    def _log_lag(self, seconds: float | None) -> None:
        now = self._loop.time()
        if now - self._lag_logged_at >= LOG_AGAIN_SECONDS:
            self._lag_logged_at = now
            lag = None if seconds is None else round(seconds, 1)
            log.warning("the replica is not recent enough for a request", lag_seconds=lag)


class _NotAStandby(Exception):
    """The server is no standby of the primary, or does not report its position."""


class ReplicaReader:
    """Implements ``ReplicaReader`` of the protocols, with one connection."""

    engine = "postgresql"

    def __init__(
        self,
        replica: Replica,
        pool: ConnectionPool,
        connection: Connection,
        resources: contextlib.AsyncExitStack,
        stats: DatabaseStats,
    ) -> None:
        self._replica = replica
        self._pool = pool
        self._connection = connection
        self._resources = resources
        self._stats = stats

    async def find(self, read: PointRead, key: Row) -> Row | None:
        rows = await self._fetch(select_one(read), *key)
        return rows[0] if rows else None

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        statement = numbered(sql)
        return await self._fetch(statement.text, *statement.values(params))

    async def rows_in_background(self, sql: str, params: Params) -> Sequence[Row]:
        return await self.rows(sql, params)

    async def _fetch(self, text: str, *values: object) -> Sequence[Row]:
        """Every error is one of the replica: the primary executes the statement again, and has the final say."""
        try:
            rows: Sequence[Row] = await self._connection.fetch(text, *values)
        except asyncio.CancelledError:
            self._connection.terminate()  # it may be in the middle of the statement
            raise
        except Exception as error:
            self._replica.outages.report(error)
            if isinstance(error, BROKEN):
                self._connection.terminate()
                self._replica.leave(self._pool, error)
            raise ReplicaFailed from error
        return rows

    async def close(self, *, has_answered: bool) -> None:
        if has_answered:
            self._stats.replica_answers += 1
        else:
            self._stats.replica_refusals += 1
        with contextlib.suppress(Exception):  # the COMMIT of a connection that failed
            await self._resources.aclose()
