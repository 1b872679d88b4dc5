"""The writer of SQLite: group commit, the write lock among processes, cancelled callers, closing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import Database, Transaction, Unit
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_database
from ecomcharge.storage.sqlite import writer
from support.shops import with_database
from support.waiting import eventually

CREATE = "CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)"

WRITE_UNTIL_KILLED = """
import asyncio, sys
from ecomcharge.storage.opening import open_database

async def main():
    database = await open_database(sys.argv[1], commit_in_thread=sys.argv[3] == "thread")
    number = int(sys.argv[2])
    async def write(number):
        async def unit(tx):
            await tx.run("INSERT INTO numbers VALUES (:number)", {"number": number})
        await database.write(unit)
        print(number, flush=True)
    while True:
        await asyncio.gather(*(write(number + i) for i in range(8)))
        number += 8

asyncio.run(main())
"""


def insert(number: int) -> Unit[int]:
    async def unit(tx: Transaction) -> int:
        await tx.run("INSERT INTO numbers VALUES (:number)", {"number": number})
        return number

    return unit


async def numbers(database: Database) -> list[int]:
    return [number for (number,) in await database.rows("SELECT number FROM numbers ORDER BY number", {})]


async def create_table(database: Database) -> None:
    await database.write(lambda tx: tx.run(CREATE, {}))


@pytest.mark.parametrize("commit_in_thread", [True, False])
def test_close_commits_every_waiting_unit(tmp_path: Path, commit_in_thread: bool) -> None:
    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/x.db", commit_in_thread=commit_in_thread)
        await create_table(database)
        writes = [asyncio.create_task(database.write(insert(number))) for number in range(1_000)]
        await asyncio.sleep(0)  # all of them are accepted
        await database.close()
        assert await asyncio.gather(*writes) == list(range(1_000))
        with pytest.raises(Unavailable):
            await database.write(insert(1_000))
        again = await open_database(f"sqlite:///{tmp_path}/x.db")
        assert await numbers(again) == list(range(1_000))
        await again.close()

    asyncio.run(work())


def test_a_unit_cancelled_before_its_start_does_not_run(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        await create_table(database)
        writes = [asyncio.create_task(database.write(insert(number))) for number in range(10)]
        await asyncio.sleep(0)
        for write in writes[::2]:
            write.cancel()
        assert await asyncio.gather(*writes[1::2]) == [1, 3, 5, 7, 9]
        assert await numbers(database) == [1, 3, 5, 7, 9]

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_callers_cancelled_during_a_commit_do_not_affect_other_units(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        await create_table(database)
        for batch in range(50):
            first = 10 * batch
            writes = [asyncio.create_task(database.write(insert(first + number))) for number in range(10)]
            for _ in range(batch % 4):
                await asyncio.sleep(0)
            for write in writes[::2]:
                write.cancel()
            assert await asyncio.gather(*writes[1::2]) == [first + number for number in (1, 3, 5, 7, 9)]
            cancelled = await asyncio.gather(*writes[::2], return_exceptions=True)
            done = [outcome for outcome in cancelled if isinstance(outcome, int)]
            assert set(done) <= set(await numbers(database))

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_a_unit_that_raises_cancelled_error_fails_alone(tmp_path: Path) -> None:
    async def cancels(tx: Transaction) -> None:
        await insert(100)(tx)
        raise asyncio.CancelledError

    async def work(database: Database) -> None:
        await create_table(database)
        outcomes = await asyncio.gather(
            database.write(insert(1)), database.write(cancels), database.write(insert(2)), return_exceptions=True
        )
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert [outcomes[0], outcomes[2]] == [1, 2]
        assert await numbers(database) == [1, 2]

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_units_that_wait_too_long_are_refused_and_later_ones_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_MILLISECONDS", 300)

    async def work(database: Database) -> None:
        await create_table(database)
        other_process = os.open(f"{tmp_path}/x.db-writer", os.O_RDWR)
        fcntl.flock(other_process, fcntl.LOCK_EX)
        started = time.monotonic()
        refused = await asyncio.gather(*(database.write(insert(number)) for number in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in refused] == [Unavailable] * 5
        assert 0.3 <= time.monotonic() - started < 5
        accepted = asyncio.create_task(database.write(insert(7)))
        await asyncio.sleep(0)
        os.close(other_process)
        assert await accepted == 7
        assert await numbers(database) == [7]

    with_database(f"sqlite:///{tmp_path}/x.db", work)


def test_an_event_loop_can_end_while_another_process_holds_the_write_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_MILLISECONDS", 200)
    other_process = -1

    async def work() -> None:
        nonlocal other_process
        database = await open_database(f"sqlite:///{tmp_path}/x.db")
        await create_table(database)
        other_process = os.open(f"{tmp_path}/x.db-writer", os.O_RDWR)
        fcntl.flock(other_process, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            await database.write(insert(1))
        await database.close()

    started = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - started < 5
    os.close(other_process)


def test_close_refuses_units_that_still_wait_and_releases_the_write_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_MILLISECONDS", 200)

    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/x.db")
        await create_table(database)
        other_process = os.open(f"{tmp_path}/x.db-writer", os.O_RDWR)
        fcntl.flock(other_process, fcntl.LOCK_EX)
        first = asyncio.create_task(database.write(insert(1)))
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0.35)  # the first unit was refused; the next one still waits when the database is closed
        second = asyncio.create_task(database.write(insert(2)))
        await closing
        fcntl.flock(other_process, fcntl.LOCK_UN)
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2
        async with asyncio.timeout(5):
            await asyncio.to_thread(fcntl.flock, other_process, fcntl.LOCK_EX)
        os.close(other_process)

    asyncio.run(work())


@pytest.mark.parametrize("commit_in_thread", [True, False])
def test_a_batch_is_committed_after_a_failed_commit_and_rollback(tmp_path: Path, commit_in_thread: bool) -> None:
    class FailingConnection:
        """A connection on which COMMIT and ROLLBACK fail once each."""

        def __init__(self, connection: apsw.Connection) -> None:
            self._connection = connection
            self._fails = ["COMMIT", "ROLLBACK"]

        def execute(self, sql: str) -> apsw.Cursor:
            if sql in self._fails:
                self._fails.remove(sql)
                raise apsw.IOError(sql)
            return self._connection.execute(sql)

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    async def work() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/x.db", commit_in_thread=commit_in_thread)
        await create_table(database)
        batches: Any = vars(database)["_writer"]
        batches.connection = FailingConnection(batches.connection)
        with pytest.raises(Unavailable):
            await database.write(insert(1))
        assert await database.write(insert(2)) == 2
        assert await numbers(database) == [2]
        await database.close()

    asyncio.run(work())


def test_a_migration_is_queued_with_units_of_work(tmp_path: Path) -> None:
    async def work(database: Database) -> None:
        await create_table(database)
        writes = [asyncio.create_task(database.write(insert(number))) for number in range(600)]
        assert await migrate(database) != []
        assert await asyncio.gather(*writes) == list(range(600))

    async def opened() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/x.db")
        await work(database)
        await database.close()

    asyncio.run(opened())


def write_to_be_killed(url: str, log: Path, where: str) -> subprocess.Popen[bytes]:
    first = 10_000_000 * int(log.name.rpartition("-")[2])
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", WRITE_UNTIL_KILLED, url, str(first), where], stdout=output)


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_processes_killed_during_commits_keep_every_acknowledged_row(tmp_path: Path, where: str) -> None:
    url = f"sqlite:///{tmp_path}/x.db"

    async def prepare(database: Database) -> None:
        await create_table(database)

    with_database(url, prepare)
    logs = [tmp_path / f"acknowledged-{number}" for number in range(4)]
    for pair in (logs[:2], logs[2:]):
        processes = [write_to_be_killed(url, log, where) for log in pair]
        assert eventually(lambda: all(log.read_text().count("\n") >= 200 for log in logs if log.exists()))
        for process in processes:
            process.kill()
            process.wait()

    acknowledged = {int(line) for log in logs for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")}

    async def check(database: Database) -> None:
        assert acknowledged <= set(await numbers(database))
        await database.write(insert(-1))

    with_database(url, check)
