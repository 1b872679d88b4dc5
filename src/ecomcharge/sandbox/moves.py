"""Moves of the sandbox clock: one at a time across all processes of a database, each with a record of its progress.

A move holds a lease on the clock, in real time, and renews it. The lease of a process that was killed expires, and the
next move begins. A process that was paused for longer than its lease finds another move's id on the clock and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypedDict

import msgspec
import structlog
from msgspec import Meta

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import Clock, SystemClock
from ecomcharge.base.errors import EcomchargeError, OutcomeUnknown, RecordNotFound, Unavailable
from ecomcharge.base.ids import CLOCK_MOVE_PREFIX, IdGenerator
from ecomcharge.base.wire_types import Moment
from ecomcharge.sandbox.clock import INSERT, NAME, POLL_SECONDS, RUNNING, SandboxClock, Setting
from ecomcharge.storage.database import Database, Row, Transaction
from ecomcharge.storage.statements import Insert, PointRead

log = structlog.get_logger()

LEASE_MILLISECONDS: Final = 10_000
RENEW_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.5
RETRIES_OF_THE_END: Final = 10
MOVES_KEPT: Final = 100
PRUNED_AT_ONCE: Final = 1000

STOPPED: Final = "The process that moved the clock was stopped"
NOT_RENEWED: Final = "The process that moved the clock ended, or lost the database, before the move was complete"

INSERT_MOVE = Insert("clock_moves", ("id", "created_at", "leased_until"), key=("id",))

PRUNE = """
DELETE FROM clock_moves WHERE id IN (
    SELECT id FROM clock_moves ORDER BY id DESC LIMIT :limit OFFSET :kept
) AND (ended_at IS NOT NULL OR leased_until <= :real_now)
"""

FIND_MOVE = PointRead("clock_moves", ("id", "from_at", "to_at", "now_at", "leased_until", "ended_at", "error"), key=("id",))

TAKE_CLOCK = """
UPDATE sandbox_clock SET move_id = :id, leased_until = :leased_until WHERE name = :name AND leased_until <= :real_now
"""

BEGIN_MOVE = "UPDATE clock_moves SET from_at = :now, to_at = :target, now_at = :now WHERE id = :id"

RENEW_CLOCK = "UPDATE sandbox_clock SET leased_until = :leased_until WHERE name = :name AND move_id = :id"

RENEW_MOVE = "UPDATE clock_moves SET leased_until = :leased_until WHERE id = :id AND ended_at IS NULL"

# The clock is set from the setting that was read, so that it never goes to where it would have gone from another one.
SET_CLOCK = """
UPDATE sandbox_clock SET frozen_at = :frozen_at, ahead = :ahead
WHERE name = :name AND move_id = :id AND COALESCE(frozen_at, -1) = :frozen_before AND ahead = :ahead_before
"""

NOTE_PROGRESS = "UPDATE clock_moves SET now_at = :now WHERE id = :id"

HOLDER = PointRead("sandbox_clock", ("move_id",), key=("name",))

# A renewal that is under way finds nothing to renew.
RELEASE_CLOCK = "UPDATE sandbox_clock SET leased_until = 0, move_id = NULL WHERE name = :name AND move_id = :id"

END_MOVE = "UPDATE clock_moves SET ended_at = :real_now, error = :error WHERE id = :id AND ended_at IS NULL"

Target = Callable[[int], int]


class ClockTaken(Exception):
    """Another process holds the clock, because the lease of this move had expired."""


class Move(msgspec.Struct, frozen=True):
    """The record of a move. Times of the sandbox clock, but the last two in real time."""

    id: str
    from_at: int | None
    to_at: int | None
    now_at: int | None
    leased_until: int
    ended_at: int | None
    error: str | None


_WAITS: Final = "`null` while the move waits for another one. UTC."
# Not a class: ``from`` is a word of the language.
ClockMoveObject = TypedDict(
    "ClockMoveObject",
    {
        "id": str,
        "from": Annotated[Moment | None, Meta(description=f"The time when the move began. {_WAITS}")],
        "to": Annotated[Moment | None, Meta(description=f"The time to move to. {_WAITS}")],
        "now": Annotated[Moment | None, Meta(description=f"The time that the move has reached. {_WAITS}")],
        "done": Annotated[bool, Meta(description="Whether the move has ended.")],
        "error": Annotated[str | None, Meta(description="Why it ended before it was complete.")],
    },
)


def move_to_json(move: Move, real_now: int) -> ClockMoveObject:
    """``done`` when the move has ended, however it ended; ``error`` when it ended before it came to ``to``."""
    expired = move.ended_at is None and move.leased_until <= real_now
    return {
        "id": move.id,
        "from": _iso(move.from_at),
        "to": _iso(move.to_at),
        "now": _iso(move.now_at),
        "done": expired or move.ended_at is not None,
        "error": NOT_RENEWED if expired else move.error,
    }


@dataclass
class ClockMove:
    """A move that holds the clock, to ``target``."""

    id: str
    clock: SandboxClock
    target: int

    async def move_to(self, moment: int) -> None:
        """Move the clock forward; nothing happens if it is there already. Raises ``ClockTaken``."""
        while moment > await self.clock.read():
            if await self._set(self.clock.setting_at(moment), moment):
                return
            await self._check_holder()

    async def set_back(self) -> None:
        """Set the clock to ``target``, which lies behind it. Raises ``ClockTaken``."""
        await self.clock.refresh()
        while not await self._set(self.clock.setting_at(self.target), self.target):
            await self._check_holder()
            await self.clock.refresh()

    async def _set(self, setting: Setting, moment: int) -> bool:
        """``False`` if somebody else changed the clock since it was read."""
        before = self.clock.setting
        params = {
            **NAME,
            "id": self.id,
            "frozen_at": setting.frozen_at,
            "ahead": setting.ahead,
            "frozen_before": -1 if before.frozen_at is None else before.frozen_at,
            "ahead_before": before.ahead,
        }

        async def unit(tx: Transaction) -> bool:
            if not await tx.run(SET_CLOCK, params):
                return False
            await tx.run(NOTE_PROGRESS, {"id": self.id, "now": moment})
            return True

        if not await self.clock.database.write(unit):
            return False
        self.clock.use(setting)
        return True

    async def _check_holder(self) -> None:
        row = await self.clock.database.find(HOLDER, (NAME["name"],))
        if row is None or row[0] != self.id:
            raise ClockTaken


@dataclass
class ClockMoves:
    """Starts moves. ``advance`` moves the clock to the move's target and does what is due on the way."""

    clock: SandboxClock
    advance: Callable[[ClockMove], Awaitable[None]]
    real_clock: Clock = SystemClock()  # noqa: RUF009 - it has no state
    _ids: IdGenerator = field(default_factory=lambda: IdGenerator(CLOCK_MOVE_PREFIX))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def _database(self) -> Database:
        return self.clock.database

    async def run(self, target: Target) -> None:
        """Move the clock, and return when everything that was due on the way has happened.

        ``target`` gives the moment to move to, from the time at which the move begins: other moves come to their end
        first. Raises ``BadParameter`` from it, and ``OutcomeUnknown`` if the clock was moved, but not all the way.
        """
        task = self._start(self._run(await self._create(), target))
        await asyncio.wait({task})
        if task.cancelled():
            raise OutcomeUnknown(STOPPED)
        task.result()

    async def start(self, target: Target) -> str:
        """Move the clock in the background; the id of the move."""
        id = await self._create()
        self._start(self._run_in_background(id, target))
        return id

    def _start(self, move: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(move)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def find(self, id: str) -> Move:
        """The record of a move, of any process of this database. Raises ``RecordNotFound``."""
        row = await self._database.find(FIND_MOVE, (id,))
        if row is None:
            raise RecordNotFound
        return Move(*row)

    async def close(self) -> None:
        """Stop the moves that are under way: they end with an error, where they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _create(self) -> str:
        while True:
            real_now = self.real_clock.now()
            id = self._ids.generate(real_now)
            row = (id, real_now, real_now + LEASE_MILLISECONDS)
            pruned = {"limit": PRUNED_AT_ONCE, "kept": MOVES_KEPT, "real_now": real_now}

            async def unit(tx: Transaction, row: Row = row, pruned: dict[str, int] = pruned) -> bool:
                if not await tx.insert(INSERT_MOVE, row):
                    return False
                await tx.run(PRUNE, pruned)
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
            await self._take_clock(id)
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
            raise OutcomeUnknown(await self._how_far(move, reason)) from error
        else:
            await self._end(id, None)
        finally:
            renewing.cancel()

    async def _take_clock(self, id: str) -> None:
        """Waits for the end of another move."""
        while True:
            real_now = self.real_clock.now()
            params = {**NAME, "id": id, "real_now": real_now, "leased_until": real_now + LEASE_MILLISECONDS}

            async def unit(tx: Transaction, params: dict[str, object] = params) -> bool:
                await tx.insert(INSERT, RUNNING)
                return await tx.run(TAKE_CLOCK, params) > 0

            if await self._database.write(unit):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _begin(self, id: str, target: Target) -> ClockMove:
        now = await self.clock.read()
        move = ClockMove(id, self.clock, target(now))

        async def unit(tx: Transaction) -> None:
            await tx.run(BEGIN_MOVE, {"id": id, "now": now, "target": move.target})

        await self._database.write(unit)
        return move

    async def _renew(self, id: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            params = {"id": id, "leased_until": self.real_clock.now() + LEASE_MILLISECONDS}

            async def unit(tx: Transaction, params: dict[str, object] = params) -> None:
                await tx.run(RENEW_CLOCK, {**NAME, **params})
                await tx.run(RENEW_MOVE, params)

            try:
                await self._database.write(unit)
            except EcomchargeError as error:
                log.warning("the lease of the sandbox clock was not renewed", move=id, reason=error.code)

    async def _end(self, id: str, error: str | None) -> None:
        """If the database stays away, the lease expires instead."""
        params = {"id": id, "error": error, "real_now": self.real_clock.now()}

        async def unit(tx: Transaction) -> None:
            await tx.run(RELEASE_CLOCK, {**NAME, "id": id})
            await tx.run(END_MOVE, params)

        for _ in range(RETRIES_OF_THE_END):
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await self._database.write(unit)
                return
            await asyncio.sleep(RETRY_SECONDS)
        log.warning("the end of a move of the sandbox clock was not written", move=id)

    async def _how_far(self, move: ClockMove, reason: str) -> str:
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
    if isinstance(error, ClockTaken):
        return "Another process moved the clock meanwhile"
    log.exception("moving the sandbox clock failed")
    return "Internal server error"


def _iso(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)
