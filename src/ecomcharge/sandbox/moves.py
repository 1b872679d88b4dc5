"""Moves of the sandbox clock. Only one move runs at a time in all processes of a database; each has a record of its progress.

A move holds a lease on the clock, in real time, and renews it. The lease of a killed process expires, and the next move begins.
A process that was paused for longer than its lease finds the id of another move on the clock, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import EcomchargeError, IncompleteMove, OutcomeUnknown, RecordNotFound, Unavailable
from ecomcharge.base.ids import CLOCK_MOVE_PREFIX, IdGenerator
from ecomcharge.sandbox import store
from ecomcharge.sandbox.clock import POLL_SECONDS, SandboxClock
from ecomcharge.sandbox.model import Move, Setting
from ecomcharge.storage.database import Database, Transaction

log = structlog.get_logger()

LEASE_MILLISECONDS: Final = 10_000
RENEW_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.5
END_ATTEMPTS: Final = 10
MOVES_KEPT: Final = 100
MOVES_DELETED_AT_ONCE: Final = 1000

STOPPED: Final = "The process that moved the clock was stopped"

Target = Callable[[int], int]


class ClockLeaseLost(Exception):
    """The lease of this move expired, and another process holds the clock."""


@dataclass
class ClockMove:
    """A move to ``target`` that holds the clock."""

    id: str
    clock: SandboxClock
    target: int

    async def move_to(self, moment: int) -> None:
        """Move the clock forward. Does nothing if the clock is at ``moment`` or later. Raises ``ClockLeaseLost``."""
        while moment > await self.clock.read():
            if await self._set(self.clock.setting_at(moment), moment):
                return
            await self._check_lease()

    async def set_back(self) -> None:
        """Set the clock back to ``target``. Raises ``ClockLeaseLost``."""
        await self.clock.refresh()
        while not await self._set(self.clock.setting_at(self.target), self.target):
            await self._check_lease()
            await self.clock.refresh()

    async def _set(self, setting: Setting, moment: int) -> bool:
        """``False`` if the setting changed after it was read."""
        before = self.clock.setting

        async def unit(tx: Transaction) -> bool:
            return await store.change_setting_in_move(tx, self.id, before, setting, moment)

        if not await self.clock.database.write(unit):
            return False
        self.clock.use(setting)
        return True

    async def _check_lease(self) -> None:
        if await store.move_of_clock(self.clock.database) != self.id:
            raise ClockLeaseLost


@dataclass
class ClockMoves:
    """Starts moves. ``advance`` moves the clock to the target of the move, and processes everything that becomes due."""

    clock: SandboxClock
    advance: Callable[[ClockMove], Awaitable[None]]
    real_clock: Clock = SystemClock()  # noqa: RUF009 - it has no state
    _ids: IdGenerator = field(default_factory=lambda: IdGenerator(CLOCK_MOVE_PREFIX))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def _database(self) -> Database:
        return self.clock.database

    async def run(self, target: Target) -> None:
        """Move the clock, and return when everything that became due is processed.

        Waits for other moves to end. ``target`` then gets the time of the clock and returns the time to move to. Raises
        the ``BadParameter`` of ``target``, and ``IncompleteMove`` if the clock was moved, but not to the target.
        """
        task = self._start(self._run(await self._create(), target))
        await asyncio.wait({task})
        if task.cancelled():
            raise IncompleteMove(STOPPED)
        task.result()

    async def start(self, target: Target) -> str:
        """Move the clock in the background. Returns the id of the move."""
        id = await self._create()
        self._start(self._run_in_background(id, target))
        return id

    def _start(self, move: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(move)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def find(self, id: str) -> Move:
        """The record of a move, also of a move by another process. Raises ``RecordNotFound``."""
        move = await store.find_move(self._database, id)
        if move is None:
            raise RecordNotFound
        return move

    async def close(self) -> None:
        """Stop the moves in progress. Their records get an error; the clock stays where it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _create(self) -> str:
        while True:
            real_now = self.real_clock.now()
            id = self._ids.generate(real_now)

            async def unit(tx: Transaction, id: str = id, real_now: int = real_now) -> bool:
                if not await store.insert_move(tx, id, real_now, real_now + LEASE_MILLISECONDS):
                    return False
                await store.delete_old_moves(tx, MOVES_KEPT, MOVES_DELETED_AT_ONCE, real_now)
                return True

            if await self._database.write(unit):
                return id

    async def _run_in_background(self, id: str, target: Target) -> None:
        try:
            await self._run(id, target)
        except EcomchargeError as error:
            log.warning("the sandbox clock was not moved all the way", move=id, reason=error.code, why=error.message)
        except Exception:
            log.exception("the sandbox clock was not moved all the way", move=id)

    async def _run(self, id: str, target: Target) -> None:
        renewing = asyncio.create_task(self._renew(id))
        move: ClockMove | None = None
        try:
            await self._acquire_clock(id)
            move = await self._begin(id, target)
            if move.target > self.clock.now():
                await self.advance(move)
            else:
                await move.set_back()
        except asyncio.CancelledError:
            await self._end(id, STOPPED)
            raise
        except Exception as error:
            reason = _reason(error)
            await self._end(id, reason)
            if move is None:  # nothing was changed
                raise
            raise IncompleteMove(await self._message_of_incomplete(move, reason)) from error
        else:
            await self._end(id, None)
        finally:
            renewing.cancel()

    async def _acquire_clock(self, id: str) -> None:
        """Waits for the end of another move."""
        while True:
            real_now = self.real_clock.now()

            async def unit(tx: Transaction, real_now: int = real_now) -> bool:
                return await store.acquire_clock(tx, id, real_now, real_now + LEASE_MILLISECONDS)

            if await self._database.write(unit):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _begin(self, id: str, target: Target) -> ClockMove:
        now = await self.clock.read()
        move = ClockMove(id, self.clock, target(now))

        async def unit(tx: Transaction) -> None:
            await store.begin_move(tx, id, now, move.target)

        await self._database.write(unit)
        return move

    async def _renew(self, id: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            leased_until = self.real_clock.now() + LEASE_MILLISECONDS

            async def unit(tx: Transaction, leased_until: int = leased_until) -> None:
                await store.renew_leases(tx, id, leased_until)

            try:
                await self._database.write(unit)
            except EcomchargeError as error:
                log.warning("the lease of the sandbox clock was not renewed", move=id, reason=error.code)

    async def _end(self, id: str, error: str | None) -> None:
        """If the database stays unavailable, the move ends when its lease expires."""
        real_now = self.real_clock.now()

        async def unit(tx: Transaction) -> None:
            await store.end_move(tx, id, error, real_now)

        for _ in range(END_ATTEMPTS):
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await self._database.write(unit)
                return
            await asyncio.sleep(RETRY_SECONDS)
        log.warning("the end of a move of the sandbox clock was not written", move=id)

    async def _message_of_incomplete(self, move: ClockMove, reason: str) -> str:
        now_at = None
        with contextlib.suppress(EcomchargeError):
            now_at = (await self.find(move.id)).now_at
        reached = iso(self.clock.now() if now_at is None else now_at)
        return (
            f"The clock was moved to {reached} or later, not to {iso(move.target)}: {reason}. "
            "Look at GET /sandbox/clock before you move it again"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, EcomchargeError):
        return error.message
    if isinstance(error, ClockLeaseLost):
        return "Another process moved the clock meanwhile"
    log.exception("moving the sandbox clock failed")
    return "Internal server error"
