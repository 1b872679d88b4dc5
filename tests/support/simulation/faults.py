"""The faults of a simulation: a moved clock, kills, pauses and commits whose outcome is lost."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import Database, Params, Row, Unit
from ecomcharge.storage.statements import PointRead

T = TypeVar("T")
BEGIN: Final = 1_767_225_600_000  # 2026-01-01


class Killed(BaseException):
    """The simulated process was killed."""


@dataclass
class MovedClock:
    moment: int = BEGIN

    def now(self) -> int:
        return self.moment

    async def read(self) -> int:
        return self.moment


@dataclass(eq=False)
class Work:
    """The work of one process for one subscription. It may be killed, paused for any time, or lose its database."""

    name: str
    is_charged: bool = False
    has_no_database: bool = False
    call_ends_at: int | None = None  # deadline of the gateway call, by the real clock
    paused: asyncio.Event = field(default_factory=asyncio.Event)
    resumed: asyncio.Future[None] | None = None

    def resume(self) -> None:
        assert self.resumed is not None
        self.paused.clear()
        self.resumed.set_result(None)


current_work: contextvars.ContextVar[Work | None] = contextvars.ContextVar("work", default=None)


@dataclass
class FaultSchedule:
    """Random faults of each subscription, independent of the process. The probabilities are per step."""

    seed: int
    real_clock: MovedClock
    kill: float
    pause: float
    loss: float  # of the database, after the gateway call
    drawn: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    pauses: int = 0
    losses: int = 0

    def draw(self, of: str) -> random.Random:
        self.drawn[of] += 1
        return random.Random(f"{self.seed} {of} {self.drawn[of]}")

    def stop_faults(self) -> None:
        self.kill = self.pause = self.loss = 0.0

    async def step(self) -> None:
        """Kill or pause the process between two steps, at random."""
        work = current_work.get()
        if work is None:
            return
        if self.kill and self.draw(f"kill {work.name}").random() < self.kill:
            self.kills += 1
            raise Killed
        if self.pause and self.draw(f"pause {work.name}").random() < self.pause:
            self.pauses += 1
            work.resumed = asyncio.get_running_loop().create_future()
            work.paused.set()
            await work.resumed
            if (
                work.call_ends_at is not None and self.real_clock.now() >= work.call_ends_at
            ):  # as the timer of the event loop would raise
                raise TimeoutError

    def maybe_lose_database(self) -> None:
        work = current_work.get()
        if work is not None and self.loss and self.draw(f"loss {work.name}").random() < self.loss:
            self.losses += 1
            work.has_no_database = True


@dataclass
class FaultyDatabase:
    """A database whose caller may be killed at any call, and which may become unavailable after the gateway call."""

    inner: Database
    fault_schedule: FaultSchedule

    async def write(self, unit: Unit[T]) -> T:
        await self.fault_schedule.step()
        self._raise_if_lost()
        result = await self.inner.write(unit)
        await self.fault_schedule.step()
        return result

    async def find(self, read: PointRead, key: Row) -> Row | None:
        await self.fault_schedule.step()
        self._raise_if_lost()
        return await self.inner.find(read, key)

    async def rows(self, sql: str, params: Params) -> Sequence[Row]:
        self._raise_if_lost()
        return await self.inner.rows(sql, params)

    def _raise_if_lost(self) -> None:
        work = current_work.get()
        if work is not None and work.has_no_database:
            raise Unavailable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
