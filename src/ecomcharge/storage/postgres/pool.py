"""A pool of connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import asyncpg

from ecomcharge.storage.postgres.connecting import Connection, Connector
from ecomcharge.storage.postgres.errors import MOVED, UNAVAILABLE, OutageLog

WAIT_SECONDS: Final = 5.0  # for a connection that another unit uses
REST_SECONDS: Final = 5.0  # after which a connection is checked before its next use
CHECK_TIMEOUT_SECONDS: Final = 1.0
READ_ONLY_SECONDS: Final = 1.0  # how long a connection to a read-only server is used
OPEN_AGAIN_SECONDS: Final = 0.25  # after PostgreSQL refused one connection more
ONE_BY_ONE_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0

# After these a connection may be in the middle of a statement.
BROKEN: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncio.CancelledError)
# PostgreSQL has no connection left, or PgBouncer has none: its error is a violation of the protocol.
REFUSED: Final = (asyncpg.TooManyConnectionsError, asyncpg.ProtocolViolationError)


class _Idle(NamedTuple):
    connection: Connection
    opened_at: float  # by the clock of the event loop, as the next one
    used_at: float


class ConnectionPool:
    """At most ``size`` connections, opened when they are needed and lent first come, first served.

    A connection is closed when its server became read-only or stops, because it would never write again, while a new one
    may reach the new primary. asyncpg's own pool runs two tasks for every loan, which makes a batched read cost this process
    7 to 19 % more time and a batched create 5 to 10 % more (64 clients).
    """

    def __init__(self, connector: Connector, size: int, *, of_standby: bool = False) -> None:
        """With ``of_standby`` the server may be read-only."""
        self._connector = connector
        self._of_standby = of_standby
        self.begin = connector.begin  # the statement that begins a transaction
        self.limits = connector.limits
        self._size = size
        self._open = 0  # connections that are lent, idle or being opened
        self._idle: list[_Idle] = []
        self._waiting: deque[asyncio.Future[_Idle | None]] = deque()
        self._opening = 0
        self._open_again_at = 0.0  # these three: after PostgreSQL refused a connection
        self._one_by_one_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._outages = OutageLog("the replica refuses work" if of_standby else "the database refuses work")

    @property
    def is_exhausted(self) -> bool:
        """Whether all connections are in use, and no more may be opened."""
        return not self._idle and self._open >= self._size

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Connection]:
        """Raises one of ``UNAVAILABLE`` when no connection can be had in time."""
        try:
            lent = await self._take()
        except UNAVAILABLE as error:
            self._outages.report(error)
            raise
        connection = lent.connection
        try:
            yield connection
        except BROKEN as error:
            connection.terminate()
            if isinstance(error, TimeoutError):  # perhaps a firewall forgot all connections
                self._close_idle()
            self._outages.report(error)
            raise
        except MOVED as error:
            connection.terminate()
            self._close_idle()
            self._outages.report(error)
            raise
        except Exception as error:
            self._outages.report(error)
            raise
        finally:
            self._give_back(connection, lent.opened_at)

    async def close(self) -> None:
        """Close every connection, those that are lent as soon as they come back."""
        closing = []
        while self._open:
            idle = self._idle.pop() if self._idle else await self._wait_for_return()
            if idle is not None:
                closing.append(idle.connection)
                self._open -= 1
        await asyncio.gather(*map(_close, closing))  # together, because a server that does not answer delays each one

    async def _take(self) -> _Idle:
        """An idle connection that works, or a new one, or the next one that comes back."""
        while self._idle:
            idle = self._idle.pop()
            now = self._loop.time()
            if idle.connection.is_closed():
                self._forget(idle.connection)
            elif now - idle.used_at >= REST_SECONDS and not await self._answers(idle.connection):
                self._close_idle()  # those below it rested for longer
            elif not self._of_standby and now - idle.opened_at > READ_ONLY_SECONDS and _is_read_only(idle.connection):
                self._forget(idle.connection)
            else:
                return idle
        async with asyncio.timeout(max(WAIT_SECONDS, self._connector.connect_timeout_seconds)):
            while True:
                if self._may_open():
                    try:
                        return await self._open_one()
                    except REFUSED as error:
                        self._outages.report(error)
                        now = self._loop.time()
                        self._open_again_at, self._one_by_one_until = now + OPEN_AGAIN_SECONDS, now + ONE_BY_ONE_SECONDS
                elif (returned := await self._wait_for_return()) is not None:
                    return returned

    def _may_open(self) -> bool:
        """Whether there is room. While PostgreSQL refuses connections, one is tried at a time, with a pause."""
        if self._open >= self._size:
            return False
        now = self._loop.time()
        if now >= self._one_by_one_until:
            return True
        if now < self._open_again_at and self._timer is None:
            self._timer = self._loop.call_at(self._open_again_at, self._try_again)
        return now >= self._open_again_at and not self._opening

    def _try_again(self) -> None:
        self._timer = None
        self._pass_on(None)

    async def _open_one(self) -> _Idle:
        self._open += 1
        self._opening += 1
        try:
            connection = await self._connector.connect()
        except BaseException:
            self._open -= 1
            raise
        finally:
            self._opening -= 1
            if self._open < self._size:
                self._pass_on(None)
        now = self._loop.time()
        return _Idle(connection, now, now)

    async def _wait_for_return(self) -> _Idle | None:
        """The next connection that comes back; ``None`` when one may be opened instead."""
        waiter: asyncio.Future[_Idle | None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            raise

    def _give_back(self, connection: Connection, opened_at: float) -> None:
        if connection.is_closed():
            self._forget(connection)
        else:
            self._pass_on(_Idle(connection, opened_at, self._loop.time()))

    def _pass_on(self, idle: _Idle | None) -> None:
        """Give a connection, or the room for one, to the first that waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(idle)
                return
        if idle is not None:
            self._idle.append(idle)

    def _forget(self, connection: Connection) -> None:
        connection.terminate()
        self._open -= 1
        self._pass_on(None)

    def _close_idle(self) -> None:
        """Close the connections that are as old as one that failed. A new one is no better than one of this second."""
        before = self._loop.time() - READ_ONLY_SECONDS
        old = [idle for idle in self._idle if idle.opened_at < before]
        self._idle = [idle for idle in self._idle if idle.opened_at >= before]
        for idle in old:
            self._forget(idle.connection)

    async def _answers(self, connection: Connection) -> bool:
        """Whether a connection that rested still has a server. Otherwise it is closed."""
        try:
            await connection.execute("SELECT 1", timeout=CHECK_TIMEOUT_SECONDS)
        except (asyncpg.PostgresError, *UNAVAILABLE):
            self._forget(connection)
            return False
        except BaseException:
            self._forget(connection)
            raise
        return True


def _is_read_only(connection: Connection) -> bool:
    """As the server reported it last. A pooler may report nothing; then the next write fails, and the connection is closed."""
    settings = connection.get_settings()
    return "on" in (getattr(settings, "in_hot_standby", "off"), getattr(settings, "default_transaction_read_only", "off"))


async def _close(connection: Connection) -> None:
    with contextlib.suppress(*UNAVAILABLE):
        await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)
