"""The sandbox clock in the database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from ecomcharge.base.calendar import iso
from ecomcharge.base.errors import IncompleteMove, Unavailable
from ecomcharge.base.ids import EVENT_PREFIX, IdGenerator
from ecomcharge.base.settings import Settings
from ecomcharge.events import store as events
from ecomcharge.events.model import Event
from ecomcharge.runtime.composition import App
from ecomcharge.sandbox import moves
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.sandbox.model import moment_of
from ecomcharge.sandbox.moves import ClockMove, ClockMoves
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support.process import ServerProcess
from support.sandbox_clock import DEADLINE_SECONDS, shop_on, subscribe
from support.shops import ENVIRONMENT, MASTER_KEY, Shop, add_shop, with_database

DAY = 24 * 60 * 60 * 1000


def event_types(shop: Shop) -> list[str]:
    with shop.client() as http:
        return [event["type"] for event in http.get("/events").json()]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await is_so():
            await asyncio.sleep(0.02)


def test_a_clock_whose_setting_is_not_loaded_has_no_time(database_url: str) -> None:
    async def work(database: Database) -> None:
        clock = SandboxClock(database)
        with pytest.raises(RuntimeError, match="before its setting was read"):
            clock.now()
        assert abs(await clock.read() - time.time() * 1000) < 10_000

    with_database(database_url, work)


@pytest.mark.parametrize("idle", [True, False])
def test_housekeeping_keeps_new_events_after_the_clock_is_set_back(
    database_url: str, master_key: MasterKey, tmp_path: Path, idle: bool
) -> None:
    """The server got no request since before the clock was set back (``idle``), or was started afterwards."""
    a_year_ago = int(time.time()) * 1000 - 365 * DAY
    settings = Settings(database=database_url, master_key=MASTER_KEY, sandbox=True)

    def create_events(shop: Shop) -> list[str]:
        with shop.client() as http:
            assert http.post("/sandbox/clock/set", json={"to": iso(a_year_ago)}).status_code == 200
            subscribe(http)
            return event_types(shop)

    async def wait_for_housekeeping(database: Database, shop_id: int) -> None:
        """Wait until housekeeping has deleted an event that is forty days older than the clock."""
        moment = a_year_ago - 40 * DAY
        event = Event(IdGenerator(EVENT_PREFIX).generate(moment), "created.subscription", "sbs_0", 1, moment, msgspec.Raw(b"{}"))

        async def add(tx: Transaction) -> None:
            assert await events.insert(tx, shop_id, event)

        async def is_deleted() -> bool:
            found = await events.Events(database, shop_id, moment, "sbs_0").select(9)
            return found == []

        await database.write(add)
        await until(is_deleted)

    with ServerProcess(database_url, tmp_path, "--sandbox", environment=ENVIRONMENT) as process:
        shop = shop_on(process, master_key)

        async def work() -> list[str]:
            if not idle:
                created = create_events(shop)
            app = App(settings, housekeeping_seconds=0.05)
            await app.start()
            try:
                if idle:
                    created = create_events(shop)
                await wait_for_housekeeping(app.database, shop.shop_id)
            finally:
                await app.stop()
            return created

        assert asyncio.run(work()) == event_types(shop) == ["created.subscription", "customer.created"]


def test_a_move_that_fails_reports_the_time_it_reached(database_url: str, master_key: MasterKey) -> None:
    """The error must not report that nothing was written."""
    shop = add_shop(database_url, master_key)
    settings = Settings(database=database_url, master_key=MASTER_KEY, sandbox=True)

    async def work() -> None:
        app = App(settings)
        await app.start()
        made = app.clock_moves
        assert made is not None
        transport = httpx.ASGITransport(app.asgi())  # type: ignore[arg-type]
        auth = (str(shop.shop_id), shop.secret_key)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", auth=auth) as http:
            await http.post("/sandbox/clock/freeze")
            await http.post("/sandbox/clock/set", json={"to": "2027-03-01T00:00:00Z"})
            whole = made.advance

            async def fails_halfway(move: ClockMove) -> None:
                await move.move_to(moment_of("2027-03-01T05:00:00Z"))
                raise Unavailable

            made.advance = fails_halfway
            failed = await http.post("/sandbox/clock/advance", json={"step": "1d"})
            assert (failed.status_code, "retry-after" in failed.headers) == (504, False)
            message = "The clock was moved to 2027-03-01T05:00:00.000Z or later, not to 2027-03-02T00:00:00.000Z: Service is"
            assert failed.json()["message"].startswith(message)
            started = await http.post("/sandbox/clock/advance?wait=false", json={"step": "1d"})

            async def is_done() -> bool:
                return bool((await http.get(started.headers["location"])).json()["done"])

            await until(is_done)
            record = (await http.get(started.headers["location"])).json()
            assert (record["now"], record["error"]) == ("2027-03-01T05:00:00.000Z", "Service is temporarily unavailable")
            made.advance = whole
            moved = await http.post("/sandbox/clock/advance", json={"step": "1h"})
            assert moved.json()["now"] == "2027-03-01T06:00:00.000Z"
        await app.stop()

    asyncio.run(work())


def test_a_move_does_not_overwrite_a_concurrent_change(database_url: str) -> None:
    """A process stops when its lease has expired; a release without leases may set the clock at any time."""

    async def work(database: Database) -> None:
        clock, other = SandboxClock(database), SandboxClock(database)
        await clock.freeze()
        begin = clock.now()

        async def set_clock_during_move(move: ClockMove) -> None:
            async def set_back(tx: Transaction) -> None:
                await tx.run("UPDATE sandbox_clock SET frozen_at = :later WHERE name = 'clock'", {"later": begin + 2 * DAY})

            await database.write(set_back)
            await move.move_to(begin + DAY)
            assert await other.read() == begin + 2 * DAY

            async def expire(tx: Transaction) -> None:
                await tx.run("UPDATE sandbox_clock SET leased_until = 0 WHERE name = :name", {"name": "clock"})

            await database.write(expire)
            await other.resume()
            await other.freeze()
            await move.move_to(begin + 3 * DAY)

        with pytest.raises(IncompleteMove, match="Another process moved the clock"):
            await ClockMoves(clock, set_clock_during_move).run(lambda now: now + 3 * DAY)
        assert await clock.read() < begin + DAY

    with_database(database_url, work)


def test_old_clock_moves_are_deleted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "MOVES_KEPT", 3)

    async def work(database: Database) -> None:
        clock = SandboxClock(database)
        made = ClockMoves(clock, lambda move: move.move_to(move.target))
        ids = [await made._create() for _ in range(1)]
        for _ in range(5):
            await made.run(lambda now: now + DAY)
        rows = await database.rows("SELECT id FROM clock_moves ORDER BY id", {})
        assert len(rows) == 4
        assert rows[0][0] == ids[0]  # it has not ended
        # A renewal that was running when the last move ended does not block the clock.
        assert tuple((await database.rows("SELECT move_id, leased_until FROM sandbox_clock", {}))[0]) == (None, 0)

    with_database(database_url, work)
