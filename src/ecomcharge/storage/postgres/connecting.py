"""Opens connections: host after host, with limits of time and the settings of a session."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import asyncpg

from ecomcharge.storage.postgres.url import ConnectionSettings, Host, Keepalives, not_used

Connection = Any  # asyncpg comes without types

LONGEST_LOCK_TIMEOUT_SECONDS: Final = 5.0

# After these, the next host may be the right one.
_TRY_NEXT_HOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)


class TimeLimits(NamedTuple):
    """How long PostgreSQL may take. ``recovery_seconds``: to report the outcome of a COMMIT whose connection broke."""

    statement_seconds: float
    list_seconds: float
    recovery_seconds: float


# A client waits: COMMIT and its recovery take less than ten seconds together.
OF_REQUESTS: Final = TimeLimits(statement_seconds=5.0, list_seconds=10.0, recovery_seconds=4.0)
OF_BACKGROUND: Final = TimeLimits(statement_seconds=30.0, list_seconds=30.0, recovery_seconds=20.0)


class Connector:
    """Opens connections to the first host that accepts one.

    The host that accepted the last connection is tried first, one that did not respond is tried last. With
    ``in_transactions`` a pooler may give each transaction another session of PostgreSQL: nothing is left in a session,
    neither settings nor prepared statements.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        limits: TimeLimits = OF_BACKGROUND,
        in_transactions: bool = False,
    ) -> None:
        self._settings = settings
        self._hosts = settings.hosts
        self.limits = limits
        self._in_transactions = in_transactions
        # A lock that another program holds must not delay the units that do not need it. It ends before the statement
        # does: then the connection stays usable.
        lock_timeout = min(LONGEST_LOCK_TIMEOUT_SECONDS, 0.6 * limits.statement_seconds)
        self._lock_timeout_milliseconds = int(lock_timeout * 1000)
        self.connect_timeout_seconds = settings.connect_timeout_seconds * len(settings.hosts)
        self.begin = "BEGIN"
        if in_transactions:
            self.begin = f"BEGIN; SET LOCAL lock_timeout = {self._lock_timeout_milliseconds}"

    async def connect(self) -> Connection:
        """Raises an error of asyncpg or of the operating system."""
        connection = await self._connect_to_a_host()
        try:
            _set_keepalives(connection, self._settings.keepalives)
            if not self._in_transactions:
                await connection.execute(
                    f"SET lock_timeout = {self._lock_timeout_milliseconds}", timeout=self._settings.connect_timeout_seconds
                )
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _connect_to_a_host(self) -> Connection:
        if len(self._hosts) > 1 and self._settings.target_session_attrs == "prefer-standby":
            try:
                return await self._try_hosts(self._hosts, "standby")
            except _TRY_NEXT_HOST:
                return await self._try_hosts(self._hosts, "any")
        return await self._try_hosts(self._hosts, self._settings.target_session_attrs)

    async def _try_hosts(self, hosts: Sequence[Host], target_session_attrs: str | None) -> Connection:
        for number, host in enumerate(hosts):
            try:
                connection = await self._connect_to(host, target_session_attrs)
            except _TRY_NEXT_HOST as error:
                if isinstance(error, TimeoutError):  # while it is frozen, each attempt would wait for it before a new primary
                    self._hosts = (*(other for other in self._hosts if other is not host), host)
                if number == len(hosts) - 1:
                    raise
            else:
                self._hosts = (host, *(other for other in self._hosts if other is not host))
                return connection
        raise AssertionError("a URL has a host")

    async def _connect_to(self, host: Host, target_session_attrs: str | None) -> Connection:
        settings = self._settings
        options: dict[str, Any] = {"target_session_attrs": target_session_attrs} if target_session_attrs else {}
        if settings.tls is not None:
            options["ssl"] = settings.tls
        if self._in_transactions:
            options["statement_cache_size"] = 0  # then asyncpg names no prepared statement
        return await asyncpg.connect(
            settings.dsn,
            host=host.name,
            port=host.port,
            timeout=settings.connect_timeout_seconds,
            command_timeout=self.limits.statement_seconds,
            server_settings=dict(settings.server_settings),
            **options,
        )


def _set_keepalives(connection: Connection, keepalives: Keepalives) -> None:
    transport_socket = connection._transport.get_extra_info("socket")
    if transport_socket is None or transport_socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalives.enabled))]
    for name, value in (
        ("TCP_KEEPIDLE", keepalives.idle_seconds),
        ("TCP_KEEPINTVL", keepalives.interval_seconds),
        ("TCP_KEEPCNT", keepalives.probes),
        ("TCP_USER_TIMEOUT", keepalives.user_timeout_milliseconds),
    ):
        if hasattr(socket, name) and value:  # not every system has all of them
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    with socket.socket(fileno=socket.dup(transport_socket.fileno())) as duplicate:  # uvloop gives no usable socket object
        for option in options:
            duplicate.setsockopt(*option)


async def probe(settings: ConnectionSettings) -> tuple[Connection, ConnectionSettings]:
    """A first connection, and the settings without the parameters that the server or a pooler does not know.

    It leaves nothing in the session, because a pooler may give that session to another client.
    """
    while True:
        connector = Connector(settings, in_transactions=True)
        try:
            async with asyncio.timeout(connector.connect_timeout_seconds):
                return await connector.connect(), settings
        except (asyncpg.UndefinedObjectError, asyncpg.ProtocolViolationError) as error:
            unknown = [name for name in settings.server_settings if _names(str(error), name)]
            if not unknown:
                raise
            known = {name: value for name, value in settings.server_settings.items() if name not in unknown}
            warnings = (*settings.warnings, *(not_used(name) for name in unknown if name != "application_name"))
            settings = replace(settings, server_settings=known, warnings=warnings)


def _names(message: str, parameter: str) -> bool:
    return message.rstrip().endswith((f'"{parameter}"', f": {parameter}")) or f"in {parameter}:" in message
