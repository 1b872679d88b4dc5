"""Group commit: units of work that wait at the same moment share one transaction and one sync of the disk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from typing import Any, TypeVar

import apsw
import msgspec

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import DatabaseStats, Unit
from ecomcharge.storage.sqlite.commit_thread import CommitThread
from ecomcharge.storage.sqlite.connection import BUSY_TIMEOUT_MILLISECONDS
from ecomcharge.storage.sqlite.errors import UNAVAILABLE, to_domain_error
from ecomcharge.storage.sqlite.locks import WriteLock
from ecomcharge.storage.sqlite.open_files import OpenFiles
from ecomcharge.storage.sqlite.transaction import RetryIndividually, SqliteTransaction

T = TypeVar("T")

MAX_UNITS_PER_COMMIT = 256


class _PendingUnit(msgspec.Struct):
    """A unit of work, its result or error, and the future that its caller awaits."""

    unit: Unit[Any]
    outcome: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        if self.outcome.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.outcome.set_exception(to_domain_error(self.error))
        else:
            self.outcome.set_result(self.result)


class Writer:
    """Writes one batch of units after the other.

    Statements run on the event loop's thread. With ``commit_in_thread`` COMMIT runs in the commit thread.
    """

    def __init__(
        self, connection: apsw.Connection, lock: WriteLock, files: OpenFiles, stats: DatabaseStats, *, commit_in_thread: bool
    ) -> None:
        self.connection = connection
        self._transaction = SqliteTransaction(connection)
        self._lock = lock
        self._files = files
        self._thread = CommitThread()
        self._stats = stats
        self._commit_in_thread = commit_in_thread
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_PendingUnit] = []
        self._task: asyncio.Task[None] | None = None  # exists while units wait or are written
        self._stopped = False

    def write(self, unit: Unit[T]) -> asyncio.Future[T]:
        if self._stopped:
            raise Unavailable
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_PendingUnit(unit, outcome))
        if self._task is None:
            self._task = self._loop.create_task(self._write_batches())
        return outcome

    async def stop(self) -> bool:
        """Write what was accepted; returns False when another process keeps the write lock for too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * BUSY_TIMEOUT_MILLISECONDS / 1000):
                while self._task is not None and not self._stopped:
                    await asyncio.wait([self._task])
        self._stopped = True
        self._thread.stop()
        return self._task is None

    async def _write_batches(self) -> None:
        while self._waiting:
            await self._write_batch()
        self._task = None

    async def _write_batch(self) -> None:
        """Begin a transaction, run the units that wait by then, commit, and resolve their outcomes."""
        batch: list[_PendingUnit] = []
        try:
            await self._begin()
            batch = self._take_batch()
            self._files.check()
            self._run_batch(batch)
            await self._commit()
        except asyncio.CancelledError:  # the event loop is ending, and the commit thread may still use the connection
            self._stopped = True
            for pending in (*batch, *self._waiting):
                pending.outcome.cancel()
            raise
        except BaseException as error:
            self._roll_back()
            batch = batch or self._take_batch()
            for pending in batch:
                pending.error = error
        for pending in batch:
            pending.resolve()

    async def _begin(self) -> None:
        """Take the write lock and begin the transaction. Units that wait too long for another process are refused.

        Raises ``Unavailable`` after ``stop``, when the commit thread has ended or is about to.
        """
        if not self._stopped and not self._begin_transaction(wait=False):
            await self._wait_for_other_process()
        if self._stopped:
            raise Unavailable

    async def _wait_for_other_process(self) -> None:
        started = self._thread.run(functools.partial(self._begin_transaction, wait=True))
        while not (await asyncio.wait([started], timeout=BUSY_TIMEOUT_MILLISECONDS / 1000))[0]:
            refused, self._waiting = self._waiting, []
            for pending in refused:
                pending.error = Unavailable()
                pending.resolve()
        started.result()

    def _begin_transaction(self, *, wait: bool) -> bool:
        """Take the lock and run BEGIN. With ``wait``, block the thread; otherwise return False if another process writes."""
        if not self._lock.acquire(wait=wait):
            return False
        self.connection.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS if wait else 0)
        try:
            if self.connection.in_transaction:  # the ROLLBACK of the last batch failed
                self.connection.execute("ROLLBACK")
            self.connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:  # by a program that does not take our lock
            if wait:
                raise
            self._lock.release()
            return False
        finally:
            self.connection.set_busy_timeout(0)  # the event loop's thread never waits
        return True

    def _take_batch(self) -> list[_PendingUnit]:
        batch = self._waiting[:MAX_UNITS_PER_COMMIT]
        del self._waiting[:MAX_UNITS_PER_COMMIT]
        return batch

    def _run_batch(self, batch: list[_PendingUnit]) -> None:
        """Run the units; if one fails after it has written, run all of them again, each in a savepoint.

        A savepoint costs two statements, so the first run has none.
        """
        self._transaction.begin()
        try:
            for pending in batch:
                self._run(pending)
            self._transaction.flush()
        except RetryIndividually:
            self._transaction.begin()
            self.connection.execute("ROLLBACK")
            self.connection.execute("BEGIN IMMEDIATE")
            for pending in batch:
                self._run_in_savepoint(pending)
        self._stats.commits += 1
        self._stats.units += len(batch)

    def _run(self, pending: _PendingUnit) -> None:
        """Run one unit. Raises ``RetryIndividually`` when it failed after it had written."""
        if pending.outcome.done():  # the caller was cancelled
            return
        self._transaction.wrote = False
        if not self._commit_in_thread:
            # Lets the threads of a server run between two units: one that wakes on the same core waits 0.1 ms instead of 0.4
            # (median, batches of 100 units). The call takes 0.7 µs.
            os.sched_yield()
        try:
            pending.result, pending.error = _run_to_end(pending.unit(self._transaction)), None
        except UNAVAILABLE:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if self._transaction.wrote:
                raise RetryIndividually from error
            pending.error = error

    def _run_in_savepoint(self, pending: _PendingUnit) -> None:
        self.connection.execute("SAVEPOINT unit")
        self._transaction.in_savepoint = True
        try:
            self._run(pending)
        except RetryIndividually as failure:
            self.connection.execute("ROLLBACK TO unit")
            pending.error = failure.__cause__
        finally:
            self._transaction.in_savepoint = False
        self.connection.execute("RELEASE unit")

    async def _commit(self) -> None:
        if self._commit_in_thread:
            await self._thread.run(self._commit_and_release)
        else:
            self._commit_and_release()
            await asyncio.sleep(0)  # other tasks get their turn between two batches

    def _commit_and_release(self) -> None:
        """Release the lock right after COMMIT, so that other processes do not wait for this event loop."""
        self.connection.execute("COMMIT")
        self._lock.release()

    def _roll_back(self) -> None:
        with contextlib.suppress(apsw.Error):  # the error that led here is the one to report
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        self._lock.release()


def _run_to_end(coroutine: Any) -> Any:
    """Run a coroutine that never suspends. One that suspends is refused."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        return finished.value
    coroutine.close()
    raise RuntimeError("a unit of work must await nothing but its transaction")
