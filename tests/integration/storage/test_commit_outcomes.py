"""A connection that breaks during a commit is reported as committed, refused or unknown."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import pytest

from ecomcharge.base.errors import OutcomeUnknown, Unavailable
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.postgres import PostgresDatabase
from ecomcharge.storage.postgres import database as postgres_database
from ecomcharge.storage.postgres.connecting import OF_BACKGROUND
from ecomcharge.storage.postgres.database import TRANSACTIONS_IN_FLIGHT
from ecomcharge.storage.statements import Insert
from support import fake_citus
from support.faults import _numbers
from support.postgres import PostgresServer

T = TypeVar("T")


_FIELDS = b"SERROR\0CXX000\0Mcould not commit transaction for shard 102008 on at least one active node\0\0"
ERROR_OF_CITUS = b"E" + (4 + len(_FIELDS)).to_bytes(4) + _FIELDS + b"Z\0\0\0\x05I"


class Cutter:
    """A proxy to PostgreSQL that cuts the connection at the first COMMIT after a call of ``cut``.

    ``before``: PostgreSQL never sees the COMMIT. ``after``: it does, and its reply is discarded.
    ``hold``: the COMMIT is delayed and both connections stay open until ``release``.
    ``error before`` and ``error after``: the same as the first two, but the client gets the error of Citus instead of a cut.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._how = ""
        self._listener: asyncio.Server
        self._writers: list[asyncio.StreamWriter] = []
        self.met = asyncio.Event()
        self.released = asyncio.Event()
        self.refuses = False

    def cut(self, how: str) -> None:
        self._how = how

    async def __aenter__(self) -> Cutter:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.05)  # the handlers read the end of their streams

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self.refuses:
            writer.close()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        self._writers.append(server_writer)
        back = asyncio.create_task(self._forward_replies(server_reader, writer))
        try:
            await self._forward(reader, server_writer, writer, back)
        except OSError:
            pass
        finally:
            back.cancel()
            server_writer.close()
            writer.close()

    async def _forward(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter, back: asyncio.Task[None]
    ) -> None:
        while data := await reader.read(65536):
            if self._how and b"COMMIT\0" in data:
                how, self._how = self._how, ""
                back.cancel()
                if how.endswith("after"):
                    server.write(data)
                    await server.drain()
                    await asyncio.sleep(0.3)  # long enough for PostgreSQL to commit
                self.met.set()
                if how == "hold":
                    await self.released.wait()
                if how.startswith("error"):
                    client.write(ERROR_OF_CITUS)
                    await client.drain()
                return
            server.write(data)
            await server.drain()

    async def _forward_replies(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await server.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


INSERT_NOTE = Insert("notes", ("id", "text"), key=("id",))


async def _insert_note(tx: Transaction) -> str:
    await tx.insert(INSERT_NOTE, (next(_numbers), "x"))
    return "written"


def through_cutter(url: str, work: Callable[[PostgresDatabase, Cutter], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` on a database behind a ``Cutter``; it has an empty table ``notes``."""

    async def run() -> T:
        match = re.fullmatch(r"(.*127\.0\.0\.1:)(\d+)(/.*)", url)
        assert match is not None
        direct = await asyncpg.connect(url)
        await direct.execute("CREATE TABLE notes (id BIGINT PRIMARY KEY, text TEXT)")
        await direct.close()
        async with Cutter(int(match[2])) as cutter:
            database = await PostgresDatabase.open(f"{match[1]}{cutter.port}{match[3]}", connections=5)
            try:
                return await work(database, cutter)
            finally:
                await database.close()

    return asyncio.run(run())


async def outcome_and_row_count(database: PostgresDatabase, write: Awaitable[str], url: str) -> tuple[str, int]:
    """The result or error of ``write``, and the number of rows in ``notes``."""
    try:
        outcome = await asyncio.wait_for(write, 30)
    except (Unavailable, OutcomeUnknown) as error:
        outcome = type(error).__name__
    direct = await asyncpg.connect(url)
    try:
        return outcome, await direct.fetchval("SELECT count(*) FROM notes")
    finally:
        await direct.close()


def test_a_commit_whose_reply_is_lost_is_reported_as_committed(postgres_url: str) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut("after")
        return await outcome_and_row_count(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == ("written", 1)


def test_a_commit_that_never_reached_the_server_is_refused(postgres_url: str) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut("before")
        return await outcome_and_row_count(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == ("Unavailable", 0)


@pytest.mark.parametrize(("how", "notes"), [("before", 0), ("after", 1)])
def test_a_commit_whose_outcome_cannot_be_queried_is_unknown(
    postgres_url: str, how: str, notes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_database, "OF_BACKGROUND", OF_BACKGROUND._replace(recovery_seconds=1.0))

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut(how)
        writing = asyncio.ensure_future(database.write(_insert_note))
        await cutter.met.wait()
        cutter.refuses = True
        return await outcome_and_row_count(database, writing, postgres_url)

    assert through_cutter(postgres_url, work) == ("OutcomeUnknown", notes)


@pytest.mark.parametrize("how", ["error before", "error after"])
def test_an_unknown_error_of_a_commit_is_cleared_up_by_the_transaction_status(postgres_url: str, how: str) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut(how)
        return await outcome_and_row_count(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == (("Unavailable", 0) if how == "error before" else ("written", 1))


@pytest.mark.parametrize("how", ["before", "after", "error before", "error after"])
def test_with_citus_a_broken_commit_is_reported_as_committed_or_unknown(
    postgres_url: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never as refused: the status of the coordinator's transaction does not tell what a worker did."""
    monkeypatch.setattr(postgres_database, "OF_BACKGROUND", OF_BACKGROUND._replace(recovery_seconds=0.5))
    fake_citus.install(postgres_url)

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut(how)
        return await outcome_and_row_count(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == (("written", 1) if how.endswith("after") else ("OutcomeUnknown", 0))


@pytest.mark.parametrize("how", ["before", "after"])
def test_with_citus_a_broken_commit_without_an_inserted_row_is_unknown(postgres_url: str, how: str) -> None:
    fake_citus.install(postgres_url)

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        async def update(tx: Transaction) -> str:
            return str(await tx.run("UPDATE notes SET text = :text", {"text": "y"}))

        await database.write(_insert_note)
        cutter.cut(how)
        return await outcome_and_row_count(database, database.write(update), postgres_url)

    assert through_cutter(postgres_url, work) == ("OutcomeUnknown", 1)


def test_other_writes_complete_while_a_commit_is_in_doubt(postgres_url: str) -> None:
    """At most two transactions run at a time. An outage that breaks both during COMMIT must not delay other writes."""

    async def work(database: PostgresDatabase, cutter: Cutter) -> float:
        doubtful = []
        for _ in range(TRANSACTIONS_IN_FLIGHT):
            cutter.met.clear()
            cutter.cut("hold")
            doubtful.append(asyncio.ensure_future(database.write(_insert_note)))
            await cutter.met.wait()
        cutter.refuses = True
        cutter.released.set()  # cuts both connections
        await asyncio.sleep(0.2)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(database.write(_insert_note), 10)
        seconds = time.monotonic() - started
        cutter.refuses = False
        assert {type(outcome) for outcome in await asyncio.gather(*doubtful, return_exceptions=True)} == {Unavailable}
        return seconds

    assert through_cutter(postgres_url, work) < 6


def test_a_transaction_lost_in_a_crash_is_not_confused_with_a_later_one_of_its_number(
    own_postgres: PostgresServer, postgres_url: str
) -> None:
    """After a crash PostgreSQL reuses transaction numbers that no flushed WAL record contains."""

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        direct = await asyncpg.connect(postgres_url)
        await direct.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # so that no WAL is flushed before the crash
        await direct.execute("SELECT pg_reload_conf()")
        await direct.execute("CHECKPOINT")
        await direct.close()
        await asyncio.sleep(0.5)
        cutter.cut("hold")
        writing = asyncio.ensure_future(database.write(_insert_note))
        await cutter.met.wait()
        cutter.refuses = True
        own_postgres.stop(signal.SIGQUIT)
        cutter.released.set()
        own_postgres.start()
        direct = await asyncpg.connect(postgres_url)
        await direct.execute("ALTER SYSTEM RESET wal_writer_delay")
        for _ in range(5):  # other transactions, one of which gets the lost number
            await direct.execute("CREATE TABLE IF NOT EXISTS others (id BIGINT)")
            await direct.execute("INSERT INTO others VALUES (1)")
        await direct.close()
        cutter.refuses = False
        return await outcome_and_row_count(database, writing, postgres_url)

    assert through_cutter(postgres_url, work) == ("Unavailable", 0)
