"""The clock of sandbox mode: it runs with the real one, ahead of it or behind, or stands still."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypedDict
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ecomcharge.base.calendar import HOUR, Interval, iso, nth, parse_moment
from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import BadParameter
from ecomcharge.base.wire_types import Moment
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.statements import Insert, PointRead

FURTHEST: Final = 4_398_046_511_103 - 24 * HOUR  # ids tell time until 2109
LONGEST_STEP: Final = 10 * 366 * 24 * HOUR
_STEP: Final = re.compile(r"([0-9]{1,6}) ?(s|m|min|h|d|w|mo|y)\Z")
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600}
_CALENDAR: Final = {"d": "day", "w": "week", "mo": "month", "y": "year"}
_MOST_DAYS: Final = {"d": 1, "w": 7, "mo": 31, "y": 366}

FIND = PointRead("sandbox_clock", ("frozen_at", "ahead"), key=("name",))

INSERT = Insert("sandbox_clock", ("name", "frozen_at", "ahead"), key=("name",))

# Not while it is being moved, and only from the setting that was read.
CHANGE = """
UPDATE sandbox_clock SET frozen_at = :frozen_at, ahead = :ahead, move_id = NULL
WHERE name = :name AND leased_until <= :real_now
AND COALESCE(frozen_at, -1) = :frozen_before AND ahead = :ahead_before
"""

POLL_SECONDS: Final = 0.05
NAME: Final = {"name": "clock"}
RUNNING: Final = (NAME["name"], None, 0)  # of INSERT: with the real clock


class Setting(msgspec.Struct, frozen=True):
    """Where it stands still (UTC milliseconds), or how many milliseconds it is ahead of the real clock."""

    frozen_at: int | None = None
    ahead: int = 0


@dataclass
class SandboxClock:
    """Every process has one. Its setting is in the database, and is read from there before the time is.

    The server does so before each request, which may then call ``now``; everybody else calls ``read``.
    """

    database: Database
    _setting: Setting | None = None

    @property
    def setting(self) -> Setting:
        """As it was last read. There is no default: a clock that was set back would take new records for old ones."""
        if self._setting is None:
            raise RuntimeError("the sandbox clock was used before its setting was read from the database")
        return self._setting

    def now(self) -> int:
        return self._time_at(self.setting)

    async def read(self) -> int:
        await self.refresh()
        return self.now()

    async def refresh(self) -> None:
        row = await self.database.find(FIND, (NAME["name"],))
        self._setting = Setting(*row) if row is not None else Setting()

    def use(self, setting: Setting) -> None:
        """What was just written to the database."""
        self._setting = setting

    def setting_at(self, moment: int) -> Setting:
        """The setting that shows ``moment`` now; frozen or running, as it is."""
        if self.setting.frozen_at is not None:
            return Setting(frozen_at=moment)
        return Setting(ahead=moment - SystemClock().now())

    def _time_at(self, setting: Setting) -> int:
        if setting.frozen_at is not None:
            return setting.frozen_at
        return SystemClock().now() + setting.ahead

    async def freeze(self) -> None:
        await self._change(lambda: Setting(frozen_at=self.now()))

    async def resume(self) -> None:
        """Back to the real time."""
        await self._change(Setting)

    async def _change(self, wanted: Callable[[], Setting]) -> None:
        """Waits until nobody moves the clock."""
        while True:
            await self.refresh()
            setting = wanted()
            if await self._try(setting):
                self._setting = setting
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _try(self, setting: Setting) -> bool:
        before = self.setting
        params = {
            **NAME,
            "frozen_at": setting.frozen_at,
            "ahead": setting.ahead,
            "frozen_before": -1 if before.frozen_at is None else before.frozen_at,
            "ahead_before": before.ahead,
            "real_now": SystemClock().now(),
        }

        async def unit(tx: Transaction) -> bool:
            await tx.insert(INSERT, RUNNING)
            return await tx.run(CHANGE, params) > 0

        return await self.database.write(unit)


def step_of(text: str, now: int, zone: ZoneInfo) -> int:
    """Milliseconds that ``31d``, ``12h``, ``90 min``, ``2w``, ``1mo`` or ``1y`` are from ``now`` on.

    Days and longer units are counted in ``zone``, as the periods of plans are. Raises ``BadParameter``.
    """
    match = _STEP.match(text.strip().lower())
    if match is None:
        raise BadParameter("Step must be a number and a unit: s, m, h, d, w, mo or y, such as 31d")
    count, unit = int(match[1]), match[2]
    step = count * _SECONDS[unit] * 1000 if unit in _SECONDS else _calendar_step(count, unit, now, zone)
    if step > LONGEST_STEP or now + step > FURTHEST:
        raise BadParameter("Step is too long (at most ten years, and not beyond 2109)")
    return step


def moment_of(text: str) -> int:
    """UTC milliseconds of an ISO 8601 moment; without an offset it is UTC. Raises ``BadParameter``."""
    try:
        milliseconds = parse_moment(text)
    except ValueError as error:
        raise BadParameter("To must be a moment such as 2026-12-24T08:00:00Z") from error
    if not 0 <= milliseconds <= FURTHEST:
        raise BadParameter("To must lie between 1970 and 2109")
    return milliseconds


def _calendar_step(count: int, unit: str, now: int, zone: ZoneInfo) -> int:
    if count * _MOST_DAYS[unit] > 10 * 12 * 31:  # far too long, and perhaps beyond the last year of the calendar
        return LONGEST_STEP + 1
    return nth(now, Interval(count, _CALENDAR[unit]), 1, zone) - now


class ClockObject(TypedDict):
    """The clock."""

    now: Annotated[Moment, Meta(description="The time that it shows. UTC.")]
    frozen: Annotated[bool, Meta(description="Whether it is stopped.")]


def to_json(clock: SandboxClock) -> ClockObject:
    return {"now": iso(clock.now()), "frozen": clock.setting.frozen_at is not None}
