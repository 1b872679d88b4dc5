"""The setting of the sandbox clock, the record of a move, and how steps and times are written. No I/O."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypedDict
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ecomcharge.base.calendar import HOUR, Interval, iso, nth, parse_moment
from ecomcharge.base.errors import BadParameter
from ecomcharge.base.ids import LATEST_MOMENT
from ecomcharge.base.wire_types import Moment

LATEST: Final = LATEST_MOMENT - 24 * HOUR
LONGEST_STEP: Final = 10 * 366 * 24 * HOUR
NOT_RENEWED: Final = "The process that moved the clock ended, or lost the database, before the move was complete"

_STEP: Final = re.compile(r"([0-9]{1,6}) ?(s|m|min|h|d|w|mo|y)\Z")
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600}
_CALENDAR: Final = {"d": "day", "w": "week", "mo": "month", "y": "year"}
_MAXIMUM_DAYS: Final = {"d": 1, "w": 7, "mo": 31, "y": 366}


class Setting(msgspec.Struct, frozen=True):
    """The time at which the clock is frozen (UTC milliseconds), or its difference to the real time in milliseconds."""

    frozen_at: int | None = None
    ahead: int = 0


class Move(msgspec.Struct, frozen=True):
    """The record of a move. ``leased_until`` and ``ended_at`` are real times, the others are times of the sandbox clock."""

    id: str
    from_at: int | None
    to_at: int | None
    now_at: int | None
    leased_until: int
    ended_at: int | None
    error: str | None


class ClockObject(TypedDict):
    """The clock."""

    now: Annotated[Moment, Meta(description="The time that it shows. UTC.")]
    frozen: Annotated[bool, Meta(description="Whether it is stopped.")]


_WAITS: Final = "`null` while the move waits for another one. UTC."
# Not a class, because ``from`` is a keyword of Python.
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
    """``done``: the move has ended, with or without success. ``error``: it ended before ``to``."""
    expired = move.ended_at is None and move.leased_until <= real_now
    return {
        "id": move.id,
        "from": _iso(move.from_at),
        "to": _iso(move.to_at),
        "now": _iso(move.now_at),
        "done": expired or move.ended_at is not None,
        "error": NOT_RENEWED if expired else move.error,
    }


def step_of(text: str, now: int, zone: ZoneInfo) -> int:
    """The length of ``31d``, ``12h``, ``90 min``, ``2w``, ``1mo`` or ``1y`` after ``now``, in milliseconds.

    Days and longer units are counted in ``zone``, as the periods of plans are. Raises ``BadParameter``.
    """
    match = _STEP.match(text.strip().lower())
    if match is None:
        raise BadParameter("Step must be a number and a unit: s, m, h, d, w, mo or y, such as 31d")
    count, unit = int(match[1]), match[2]
    step = count * _SECONDS[unit] * 1000 if unit in _SECONDS else _calendar_step(count, unit, now, zone)
    if step > LONGEST_STEP or now + step > LATEST:
        raise BadParameter("Step is too long (at most ten years, and not beyond 2109)")
    return step


def moment_of(text: str) -> int:
    """The UTC milliseconds of an ISO 8601 time. A time without an offset is UTC. Raises ``BadParameter``."""
    try:
        milliseconds = parse_moment(text)
    except ValueError as error:
        raise BadParameter("To must be a moment such as 2026-12-24T08:00:00Z") from error
    if not 0 <= milliseconds <= LATEST:
        raise BadParameter("To must lie between 1970 and 2109")
    return milliseconds


def _calendar_step(count: int, unit: str, now: int, zone: ZoneInfo) -> int:
    if count * _MAXIMUM_DAYS[unit] > 10 * 12 * 31:  # too long, and the calendar may not reach so far
        return LONGEST_STEP + 1
    return nth(now, Interval(count, _CALENDAR[unit]), 1, zone) - now


def _iso(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)
