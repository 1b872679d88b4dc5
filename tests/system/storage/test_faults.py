"""What breaks underneath, and what our callers are told: the truth, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg
import pytest

from ecomcharge.base.errors import OutcomeUnknown, Unavailable
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Transaction
from ecomcharge.storage.postgres import PostgresDatabase, recovery
from ecomcharge.storage.postgres.database import TRANSACTIONS_IN_FLIGHT
from ecomcharge.storage.statements import Insert
from support.load import Ledger, Line, Load, Reply, Wish, is_plain_refusal, read_all
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop

T = TypeVar("T")

KILLS = 3
UNDER_LOAD_SECONDS = 0.5
PATIENCE_SECONDS = 20.0  # for what must come back by itself
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that nobody else uses, to be stopped at will."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(own_postgres: PostgresServer) -> str:
    return own_postgres.create_database(f"faults_{next(_numbers)}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def line_to(process: ServerProcess, shop: Credentials) -> Line:
    return Line(process.url, shop.shop_id, shop.secret_key)


def load_on(process: ServerProcess, shop: Credentials) -> Load:
    return Load([process.url], shop.shop_id, shop.secret_key)


def new_wish() -> Wish:
    number = next(_numbers)
    return Wish(f"probe-{number}@shop.test", f"probe-{number}")


def until(asked: Callable[[], Reply], status: int, seconds: float = PATIENCE_SECONDS) -> Reply:
    """Ask until the answer has this status; the last answer in any case."""
    deadline = time.monotonic() + seconds
    while (reply := asked()).status != status and time.monotonic() < deadline:
        time.sleep(0.05)
    return reply


def again_if_closed(asked: Callable[[], Reply]) -> Reply:
    """A connection that was idle for long may have been closed: then the next question opens another."""
    try:
        return asked()
    except (OSError, HTTPException):
        return asked()


def within_patience(is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return so


def check_everything(process: ServerProcess, shop: Credentials, ledger: Ledger) -> None:
    """The list agrees with the ledger, and so do the last of the acknowledged, read one by one."""
    with line_to(process, shop) as line:
        ledger.check(line.customers())
    last = list(ledger.acknowledged.items())[-300:]
    replies = read_all(process.url, shop.shop_id, shop.secret_key, [id for _, id in last])
    assert [reply.json().get("email") for reply in replies] == [email for email, _ in last]


# The server is killed


def test_a_killed_server_has_lost_nothing_that_it_acknowledged(
    database_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(database_url, master_key)
    ledger = Ledger()
    with ServerProcess(database_url, server_folder, "--workers", "2", environment=ENVIRONMENT) as process:
        for _ in range(KILLS):
            with load_on(process, shop) as load:
                time.sleep(UNDER_LOAD_SECONDS)
                process.kill()
            process.start()
            with line_to(process, shop) as line:
                for wish in load.ledger.unknown:
                    if wish.key is not None:
                        first, second = line.create(wish.body, wish.key), line.create(wish.body, wish.key)
                        assert (first.status, second.status) == (201, 201)
                        assert first.body == second.body
                        load.ledger.acknowledged[wish.email] = first.json()["id"]
            ledger.add(load.ledger)
            check_everything(process, shop, ledger)
    print(ledger)
    assert len(ledger.acknowledged) > 100
    assert ledger.unknown, "no kill met a request in progress"


# PostgreSQL goes away


def test_a_worker_killed_while_postgresql_is_down_waits_for_it(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    with ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
        own_postgres.stop(signal.SIGQUIT)
        try:
            for pid in process.worker_pids():
                os.kill(pid, signal.SIGKILL)
            assert within_patience(lambda: "a worker waits for the database" in process.log())
        finally:
            own_postgres.start()
        assert within_patience(process.answers)
        wish = new_wish()
        assert until(functools.partial(line.create, wish.body, wish.key), 201).status == 201
        assert process.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_while_postgresql_is_stopped_requests_are_refused_and_afterwards_all_is_as_told(
    own_postgres: PostgresServer, postgres_url: str, master_key: MasterKey, server_folder: Path, how: signal.Signals
) -> None:
    shop = add_shop(postgres_url, master_key)
    ledger = Ledger()
    with (
        ServerProcess(postgres_url, server_folder, "--workers", "2", environment=ENVIRONMENT) as process,
        line_to(process, shop) as line,
    ):
        for _ in range(2):
            with load_on(process, shop) as load:
                time.sleep(UNDER_LOAD_SECONDS)
                own_postgres.stop(how)
                try:
                    _check_the_outage(line, load.ledger)
                finally:
                    own_postgres.start()
                wish = new_wish()
                load.ledger.enter(wish, until(functools.partial(line.create, wish.body, wish.key), 201))
                assert until(functools.partial(line.ask, "GET", "/readyz"), 200).status == 200
                time.sleep(0.3)
            ledger.add(load.ledger)
            check_everything(process, shop, ledger)
    print(how.name, ledger)
    assert len(ledger.acknowledged) > 100
    assert ledger.refused


def _check_the_outage(line: Line, ledger: Ledger) -> None:
    for _ in range(5):
        wish = new_wish()
        reply = again_if_closed(functools.partial(line.create, wish.body, wish.key))
        ledger.enter(wish, reply)
        assert reply.status == 503
        assert is_plain_refusal(reply)
        assert reply.seconds < 3
        ready = line.ask("GET", "/readyz")
        assert ready.status == 503
        assert is_plain_refusal(ready)
        assert line.ask("GET", "/healthz").status == 200
        time.sleep(0.1)


def test_backends_that_are_terminated_under_load_lose_and_double_nothing(
    postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    terminated = 0
    with ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process:
        with load_on(process, shop) as load:
            for _ in range(20):
                time.sleep(0.1)
                terminated += asyncio.run(_terminate_backends(postgres_url))
        check_everything(process, shop, load.ledger)
    print(f"{terminated} terminated,", load.ledger)
    assert terminated > 20
    assert load.ledger.unknown == []
    assert load.ledger.slowest_seconds < 5


async def _terminate_backends(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        terminated: int = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return terminated
    finally:
        await connection.close()


# The connection breaks during COMMIT


class Cutter:
    """Stands between us and PostgreSQL, and cuts the connection at the first COMMIT after it was told how.

    ``before``: PostgreSQL never sees the COMMIT. ``after``: it does, and its reply is thrown away.
    ``hold``: the COMMIT is kept and both ends stay open until ``release``.
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
        await asyncio.sleep(0.05)  # the handlers see their ends

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
        back = asyncio.create_task(self._carry_back(server_reader, writer))
        try:
            await self._carry(reader, server_writer, back)
        except OSError:
            pass
        finally:
            back.cancel()
            server_writer.close()
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, back: asyncio.Task[None]) -> None:
        while data := await reader.read(65536):
            if self._how and b"COMMIT\0" in data:
                how, self._how = self._how, ""
                if how == "after":
                    back.cancel()
                    server.write(data)
                    await server.drain()
                    await asyncio.sleep(0.3)  # long enough for PostgreSQL to commit
                self.met.set()
                if how == "hold":
                    await self.released.wait()
                return
            server.write(data)
            await server.drain()

    async def _carry_back(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
    """Run ``work`` on a database behind a cutter; it has an empty table ``notes``."""

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


async def told_and_true(database: PostgresDatabase, write: Awaitable[str], url: str) -> tuple[str, int]:
    """What ``write`` said, and how many notes there are."""
    try:
        told = await asyncio.wait_for(write, 30)
    except (Unavailable, OutcomeUnknown) as error:
        told = type(error).__name__
    direct = await asyncpg.connect(url)
    try:
        return told, await direct.fetchval("SELECT count(*) FROM notes")
    finally:
        await direct.close()


def test_a_commit_whose_reply_is_lost_was_a_commit(postgres_url: str) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut("after")
        return await told_and_true(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == ("written", 1)


def test_a_commit_that_never_arrived_is_refused_and_nothing_is_written(postgres_url: str) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut("before")
        return await told_and_true(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == ("Unavailable", 0)


@pytest.mark.parametrize(("how", "notes"), [("before", 0), ("after", 1)])
def test_a_commit_that_nobody_can_tell_about_is_called_unknown(
    postgres_url: str, how: str, notes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RECOVERY_SECONDS", 1.0)

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        cutter.cut(how)
        writing = asyncio.ensure_future(database.write(_insert_note))
        await cutter.met.wait()
        cutter.refuses = True
        return await told_and_true(database, writing, postgres_url)

    assert through_cutter(postgres_url, work) == ("OutcomeUnknown", notes)


@pytest.mark.parametrize(("how", "notes"), [("before", 0), ("after", 1)])
def test_an_engine_that_cannot_tell_outcomes_makes_a_broken_commit_unknown(postgres_url: str, how: str, notes: int) -> None:
    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        database._has_transaction_status = False  # as with CockroachDB, which has no pg_xact_status
        cutter.cut(how)
        return await told_and_true(database, database.write(_insert_note), postgres_url)

    assert through_cutter(postgres_url, work) == ("OutcomeUnknown", notes)


def test_while_one_commit_is_in_doubt_other_writes_are_answered(postgres_url: str) -> None:
    """Two transactions are in flight at most. An outage that meets both during COMMIT must not delay the others."""

    async def work(database: PostgresDatabase, cutter: Cutter) -> float:
        doubtful = []
        for _ in range(TRANSACTIONS_IN_FLIGHT):
            cutter.met.clear()
            cutter.cut("hold")
            doubtful.append(asyncio.ensure_future(database.write(_insert_note)))
            await cutter.met.wait()
        cutter.refuses = True
        cutter.released.set()  # cuts both
        await asyncio.sleep(0.2)
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(database.write(_insert_note), 10)
        seconds = time.monotonic() - started
        cutter.refuses = False
        assert {type(told) for told in await asyncio.gather(*doubtful, return_exceptions=True)} == {Unavailable}
        return seconds

    assert through_cutter(postgres_url, work) < 6


def test_a_transaction_that_a_crash_forgot_is_not_taken_for_a_later_one_with_its_number(
    own_postgres: PostgresServer, postgres_url: str
) -> None:
    """A crash forgets transaction numbers that no flushed WAL mentions, and PostgreSQL gives them out again."""

    async def work(database: PostgresDatabase, cutter: Cutter) -> tuple[str, int]:
        direct = await asyncpg.connect(postgres_url)
        await direct.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # so that nothing is flushed before the crash
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
        for _ in range(5):  # somebody else's transactions, one of which gets the forgotten number
            await direct.execute("CREATE TABLE IF NOT EXISTS others (id BIGINT)")
            await direct.execute("INSERT INTO others VALUES (1)")
        await direct.close()
        cutter.refuses = False
        return await told_and_true(database, writing, postgres_url)

    assert through_cutter(postgres_url, work) == ("Unavailable", 0)


# Somebody outside holds a lock


def test_an_idempotency_key_that_is_locked_from_outside_is_answered_and_holds_nobody_else_up(
    postgres_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(postgres_url, master_key)
    locked = new_wish()

    async def hold(holding: threading.Event, done: threading.Event) -> None:
        connection = await asyncpg.connect(postgres_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "INSERT INTO idempotency_keys (shop_id, key, claim, fingerprint, created_at) VALUES ($1, $2, 'x', 'x', $3)",
            shop.shop_id,
            locked.key,
            int(time.time() * 1000),
        )
        holding.set()
        await asyncio.to_thread(done.wait, 30)
        await transaction.rollback()
        await connection.close()

    holding, done = threading.Event(), threading.Event()
    with (
        ServerProcess(postgres_url, server_folder, environment=ENVIRONMENT) as process,
        line_to(process, shop) as blocked_line,
        line_to(process, shop) as line,
        ThreadPoolExecutor(2) as pool,
    ):
        holder = pool.submit(asyncio.run, hold(holding, done))
        try:
            assert holding.wait(10)
            blocked = pool.submit(blocked_line.create, locked.body, locked.key)
            time.sleep(0.3)
            ledger = Ledger()
            for _ in range(20):
                wish = new_wish()
                ledger.enter(wish, line.create(wish.body, wish.key))
            answer = blocked.result(20)
            for _ in range(20):
                wish = new_wish()
                reply = line.create(wish.body, wish.key)
                assert reply.status == 201
                ledger.enter(wish, reply)
        finally:
            done.set()
            holder.result(30)
        print(answer.status, f"{answer.seconds:.1f} s; neighbours:", ledger)
        assert answer.status in (409, 503)
        assert answer.seconds < 6.5
        assert len(ledger.acknowledged) == 40
        assert ledger.slowest_seconds < 2
        again = blocked_line.create(locked.body, locked.key)
        assert again.status == 201
        ledger.enter(locked, again)
        check_everything(process, shop, ledger)


HOLD_THE_WRITE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def test_sqlite_that_another_program_locks_refuses_writes_and_serves_reads(
    sqlite_url: str, master_key: MasterKey, server_folder: Path
) -> None:
    shop = add_shop(sqlite_url, master_key)
    with (
        ServerProcess(sqlite_url, server_folder, environment=ENVIRONMENT) as process,
        line_to(process, shop) as writing,
        line_to(process, shop) as reading,
    ):
        first = writing.create(new_wish().body)
        path = f"/customers/{first.json()['id']}"
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD_THE_WRITE_LOCK, sqlite_url.removeprefix("sqlite:///")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        ledger = Ledger()
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            wish = new_wish()
            with ThreadPoolExecutor(1) as pool:
                refused = pool.submit(writing.create, wish.body, wish.key)
                reads = []
                while not refused.done():
                    reads.append(reading.ask("GET", path))
                    time.sleep(0.05)
        finally:
            holder.communicate(b"\n", timeout=10)
        ledger.enter(wish, refused.result())
        print(f"{refused.result().seconds:.1f} s; {len(reads)} reads, slowest {max(read.seconds for read in reads):.3f} s")
        assert refused.result().status == 503
        assert is_plain_refusal(refused.result())
        assert refused.result().seconds < 7
        assert {read.status for read in reads} == {200}
        assert max(read.seconds for read in reads) < 1
        after = new_wish()
        reply = writing.create(after.body, after.key)
        assert reply.status == 201
        ledger.enter(after, reply)
        check_everything(process, shop, ledger)


# The disk is full


class Disk(Protocol):
    folder: Path

    def fill(self, process: ServerProcess) -> None: ...

    def make_room(self, process: ServerProcess) -> None: ...


class SmallDisk:
    """A file system of 8 MiB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, process: ServerProcess) -> None:
        """All but some 200 kB, so that there is a way to go before the wall."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        free = os.statvfs(self.folder)
        os.posix_fallocate(descriptor, 0, free.f_bavail * free.f_frsize - 200_000)
        os.close(descriptor)

    def make_room(self, process: ServerProcess) -> None:
        self._ballast.unlink(missing_ok=True)


class LimitedFiles:
    """No file of the server may grow past a size: the errors of a disk that fails rather than fills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, process: ServerProcess) -> None:
        largest = max(path.stat().st_size for path in self.folder.glob("test.db*"))
        self._limit(process, largest + 100_000)

    def make_room(self, process: ServerProcess) -> None:
        if process.process is not None:
            self._limit(process, resource.RLIM_INFINITY)

    def _limit(self, process: ServerProcess, size: int) -> None:
        for pid in process.worker_pids():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture(params=["full", "limited"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limited":
        yield LimitedFiles(folder)
        return
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_full_disk_refuses_writes_serves_reads_and_loses_nothing(
    disk: Disk, master_key: MasterKey, server_folder: Path
) -> None:
    url = f"sqlite:///{disk.folder}/test.db"
    shop = add_shop(url, master_key)
    ledger = Ledger()
    with ServerProcess(url, server_folder, environment=ENVIRONMENT) as process, line_to(process, shop) as line:
        wish = new_wish()
        first = line.create(wish.body)
        ledger.enter(wish, first)

        disk.fill(process)
        with load_on(process, shop) as load:
            _wait_for_refusals(load, line, f"/customers/{first.json()['id']}")
            disk.make_room(process)
            wish = new_wish()
            load.ledger.enter(wish, until(lambda: line.create(wish.body, wish.key), 201))
            time.sleep(0.3)
        ledger.add(load.ledger)
        check_everything(process, shop, ledger)

        disk.fill(process)
        with load_on(process, shop) as load:
            _wait_for_refusals(load, line, f"/customers/{first.json()['id']}")
            process.kill()
        disk.make_room(process)
        process.start()
        line.close()
        ledger.add(load.ledger)
        check_everything(process, shop, ledger)
        assert line.create(new_wish().body).status == 201
        assert process.stop() == 0
        process.process = None
    print(ledger)
    assert len(ledger.acknowledged) > 50
    database = sqlite3.connect(disk.folder / "test.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def _wait_for_refusals(load: Load, line: Line, path: str) -> None:
    """Return when the disk has been full for a while and every read was answered meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not load.ledger.refused and time.monotonic() < deadline:
        time.sleep(0.02)
    assert load.ledger.refused, "the disk did not become full"
    for _ in range(10):
        assert line.ask("GET", path).status == 200
        assert line.ask("GET", "/customers?limit=100").status == 200
        assert line.ask("GET", "/readyz").status == 200
        time.sleep(0.05)
    assert line.customers()
