"""Lists and exports come from a standby only if the request allows it and the standby is recent enough."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import App
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import ReplicaFailed
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.postgres import replica
from ecomcharge.storage.postgres.positions import Position, Positions
from ecomcharge.storage.postgres.replica import ReplicaReader
from support.builders import a_customer
from support.postgres import PostgresServer
from support.shops import MASTER_KEY, add_shop

MANY = 450  # customers: a list of them is read in three statements
ADD_MANY = (
    "INSERT INTO customers (shop_id, id, first_name, last_name, search_terms)"
    f" SELECT {{shop_id}}, 'cst_' || lpad(to_hex(n), 16, '0'), 'Many', 'Customers', '' FROM generate_series(1, {MANY}) AS n"
)
CONNECTIONS = 2
APPLIED = "preference-applied"


@dataclass(frozen=True)
class Running:
    """A server in this process that reads from a standby of its primary."""

    app: App
    http: httpx.AsyncClient
    shop_id: int
    primary: PostgresServer
    standby: PostgresServer
    database: str

    async def read(self, path: str = "/customers", stale: int = 30) -> tuple[int, str | None]:
        """The number of records, and the preference that was applied."""
        response = await self.http.get(path, headers={"prefer": f"stale={stale}"})
        assert response.status_code == 200, response.text
        return len(response.json()), response.headers.get(APPLIED)

    async def is_from_replica(self, stale: int = 30) -> bool:
        return (await self.read("/plans", stale))[1] == f"stale={stale}"

    async def create(self) -> str:
        created = await self.http.post("/customers", json=a_customer())
        assert created.status_code == 201
        return str(created.json()["id"])

    async def on_standby(self, sql: str) -> str:
        return (await asyncio.to_thread(self.standby.sql, self.database, sql)).strip()


async def soon(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await is_true():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(primary: PostgresServer, url: str, master_key: MasterKey) -> AsyncIterator[Running]:
    shop = add_shop(url, master_key)
    with PostgresServer("max_standby_streaming_delay=0", primary=primary) as standby:
        database = url.rpartition("/")[2]
        read_from = f"{standby.url_of(database)}?target_session_attrs=prefer-standby"
        app = App(Settings(database=url, read_from=read_from, master_key=MASTER_KEY, postgres_connections=CONNECTIONS))
        await app.start()
        transport = httpx.ASGITransport(app.asgi())  # type: ignore[arg-type]
        credentials = (str(shop.shop_id), shop.secret_key)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test", auth=credentials) as http:
                yield Running(app, http, shop.shop_id, primary, standby, database)
        finally:
            await app.stop()


async def check_read_after_write(server: Running) -> None:
    for number in range(1, 11):
        await server.create()
        response = await server.http.get("/customers")
        assert (len(response.json()), response.headers.get(APPLIED)) == (number, None)


async def check_routes(server: Running) -> None:
    customer_id = await server.create()
    await soon(server.is_from_replica)
    paths = [f"/{each}?count=true" for each in ("customers", "plans", "subscriptions", "events")]
    paths += ["/customers?q=doe", "/customers?limit=5", f"/subscriptions?customer={customer_id}"]
    await soon(lambda: is_applied(server, f"/customers/{customer_id}/export"))
    for path in paths:
        assert await is_applied(server, path), path
    assert not await is_applied(server, f"/customers/{customer_id}")
    assert not await is_applied(server, "/readyz")
    assert (await server.read(stale=3600))[1] == "stale=600"
    assert await server.read(stale=0) == (11, None)
    refused = await server.http.get("/customers?limit=0", headers={"prefer": "stale=30"})
    assert (refused.status_code, refused.headers.get(APPLIED)) == (400, None)
    both = [("prefer", "respond-async"), ("prefer", 'wait=5, STALE = "20"; x=y')]
    assert (await server.http.get("/customers", headers=both)).headers[APPLIED] == "stale=20"


async def is_applied(server: Running, path: str) -> bool:
    return (await server.read(path))[1] == "stale=30"


async def check_lag(server: Running) -> None:
    """The standby stops replaying. Its state is the answer for a while, and the primary is read where that is too old."""
    await server.on_standby("SELECT pg_wal_replay_pause()")
    while await server.on_standby("SELECT pg_get_wal_replay_pause_state()") != "paused":
        await asyncio.sleep(0.02)
    before, _ = await server.read()
    new_id = await server.create()
    assert await server.read() == (before, "stale=30")
    assert len((await server.http.get("/customers")).json()) == before + 1
    assert not await is_applied(server, f"/customers/{new_id}/export")  # the standby does not have this customer
    await check_canceled_request(server)
    await soon(lambda: is_refused(server, stale=1))
    assert await server.read(stale=1) == (before + 1, None)
    assert await server.read() == (before, "stale=30")
    await server.on_standby("SELECT pg_wal_replay_resume()")
    await soon(lambda: server.is_from_replica(1))
    await asyncio.sleep(1.1)  # an idle primary does not make the standby old
    assert await server.read(stale=1) == (before + 1, "stale=1")


async def check_canceled_request(server: Running) -> None:
    """The connection in the middle of a statement is not used again."""
    reader = await server.app.database.replica_reader(30)
    assert reader is not None
    reading = asyncio.create_task(reader.rows("SELECT pg_sleep(10)", {}))
    await asyncio.sleep(0.1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await reader.close(has_answered=False)
    for _ in range(CONNECTIONS):
        assert await server.is_from_replica()


async def is_refused(server: Running, stale: int) -> bool:
    return not await server.is_from_replica(stale)


async def check_connections(server: Running) -> None:
    """When all connections are in use, the primary answers, and the replica is not left."""
    database = server.app.database
    readers = [await database.replica_reader(30) for _ in range(CONNECTIONS)]
    assert None not in readers
    assert await database.replica_reader(30) is None
    for reader in readers:
        assert reader is not None
        await reader.close(has_answered=False)
    assert await server.is_from_replica()


async def check_conflict(server: Running) -> None:
    """A lock that the standby replays ends a statement that is in its way."""
    reader = await server.app.database.replica_reader(30)
    assert reader is not None
    reading = asyncio.create_task(reader.rows("SELECT pg_sleep(10) FROM customers LIMIT 1", {}))
    await asyncio.sleep(0.3)
    lock = ("-c", "BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE; COMMIT")
    await asyncio.to_thread(server.primary.client, "psql", server.database, "-q", *lock)
    with pytest.raises(ReplicaFailed) as failed:
        await reading
    assert isinstance(failed.value.__cause__, asyncpg.SerializationError)
    await reader.close(has_answered=False)
    assert await server.is_from_replica()


async def check_long_list(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection to the replica breaks in the middle of a list: the primary answers the whole list."""
    await asyncio.to_thread(server.primary.sql, server.database, ADD_MANY.format(shop_id=server.shop_id))
    total = len((await server.http.get("/customers")).json())
    assert total > MANY
    await soon(lambda: is_whole(server, total))
    fetch, fetched = ReplicaReader._fetch, 0

    async def fail_later(self: ReplicaReader, text: str, *values: object) -> Any:
        nonlocal fetched
        fetched += 1
        if fetched == 2:
            self._connection.terminate()
        return await fetch(self, text, *values)

    with monkeypatch.context() as patched:
        patched.setattr(ReplicaReader, "_fetch", fail_later)
        response = await server.http.get("/customers", headers={"prefer": "stale=30"})
    ids = [customer["id"] for customer in response.json()]
    assert (len(set(ids)), len(ids), response.headers.get(APPLIED), fetched) == (total, total, None, 2)
    await soon(server.is_from_replica)


async def is_whole(server: Running, total: int) -> bool:
    return await server.read() == (total, "stale=30")


async def check_frozen(server: Running) -> None:
    server.standby.freeze()
    try:
        started = time.monotonic()
        assert (await server.read("/plans"))[1] is None
        assert time.monotonic() - started < 3  # a second of waiting
        started = time.monotonic()
        for _ in range(10):
            assert (await server.read("/plans"))[1] is None
        assert time.monotonic() - started < 0.8  # and none
        assert (await server.http.get("/readyz")).status_code == 200
    finally:
        server.standby.thaw()
    await soon(server.is_from_replica)


async def check_killed(server: Running) -> None:
    await asyncio.to_thread(server.standby.stop, signal.SIGQUIT)
    assert (await server.read("/plans"))[1] is None
    assert (await server.http.get("/readyz")).status_code == 200
    await asyncio.to_thread(server.standby.start)
    await soon(server.is_from_replica)


async def check_another_database(server: Running, logs: Sequence[Mapping[str, Any]]) -> None:
    """Positions are those of the cluster, so that they are equal in all of its databases."""
    other = await open_database(
        server.app.settings.database, read_from=server.standby.url_of("postgres"), postgres_connections=1, for_requests=True
    )
    try:
        await soon(lambda: is_logged(logs, "it is not a copy of this database"))
        assert await other.replica_reader(600) is None
    finally:
        await other.close()


async def is_logged(logs: Sequence[Mapping[str, Any]], reason: str) -> bool:
    return any(entry.get("reason") == reason for entry in logs)


async def check_promoted(server: Running) -> None:
    total = len((await server.http.get("/customers")).json())
    await asyncio.to_thread(server.standby.promote)
    await server.on_standby("DELETE FROM customers")
    assert await server.read() == (total, None)


def test_a_replica_answers_what_may_be_stale_and_nothing_else(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(replica, "NOTE_SECONDS", 0.1)

    async def work() -> None:
        async with running(own_postgres, postgres_url, master_key) as server:
            await check_read_after_write(server)
            await check_routes(server)
            await check_lag(server)
            await check_another_database(server, logs)
            await check_connections(server)
            await check_conflict(server)
            await check_long_list(server, monkeypatch)
            await check_frozen(server)
            await check_killed(server)
            await check_promoted(server)
            stats = server.app.database.stats
            assert stats.replica_answers > 20
            assert stats.replica_refusals > 10

    with structlog.testing.capture_logs() as logs:
        asyncio.run(work())
    reasons = [entry["reason"] for entry in logs if entry["event"] == "the replica is not used"]
    assert "PostgreSQL did not answer in time" in reasons
    assert reasons[-1] == "it is not a standby"
    assert sum(entry["event"] == "the replica is used" for entry in logs) >= 4  # at first, and each time after it failed
    assert not [entry for entry in logs if "exc_info" in entry]


def test_read_from_needs_postgresql(postgres_url: str, sqlite_url: str) -> None:
    with pytest.raises(ConfigurationError, match="a SQLite database has no replica"):
        asyncio.run(open_database(sqlite_url, read_from=postgres_url))
    with pytest.raises(ConfigurationError, match="must be the URL of a standby"):
        asyncio.run(open_database(postgres_url, read_from=sqlite_url))


def test_a_position_counts_in_its_own_timeline_only() -> None:
    positions = Positions()
    for asked_at, position in ((1.0, (1, 100)), (2.0, (1, 200)), (3.0, (1, 200)), (4.0, (2, 150)), (5.0, (2, 300))):
        positions.note(asked_at, Position(*position))
    replayed = ((1, 99), (1, 150), (1, 200), (1, 1_000), (2, 149), (2, 200), (2, 300), (3, 1_000))
    times = [positions.time_of(Position(*each)) for each in replayed]
    assert times == [None, 1.0, 3.0, 3.0, None, 4.0, 5.0, None]
