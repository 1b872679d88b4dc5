"""The calendar of subscriptions: when periods begin and when a failed charge is tried again. Pure.

Moments are UTC milliseconds. Months and years are counted in the calendar from the first date, so that a month's
end stays one: 31 January, 28 February, 31 March [D]. Hours, days and weeks are so many seconds.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

HOUR: Final = 60 * 60 * 1000
_FIXED: Final = {"hour": HOUR, "day": 24 * HOUR, "week": 7 * 24 * HOUR}
_MONTHS: Final = {"month": 1, "year": 12}
UNITS: Final = (*_FIXED, *_MONTHS)
LONGEST: Final = {"hour": 87_600, "day": 3_650, "week": 520, "month": 120, "year": 10}  # ten years of each [D]

RETRY_HOUR: Final = 3  # [P]
DAY_BEGINS: Final = 8  # with prevent_payments_at_night [P]
DAY_ENDS: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """So many of a unit: ``Interval(3, "month")``."""

    count: int
    unit: str


def nth(anchor: int, interval: Interval, n: int) -> int:
    """The moment ``n`` intervals after ``anchor``."""
    fixed = _FIXED.get(interval.unit)
    if fixed is not None:
        return anchor + n * interval.count * fixed
    return _months_later(anchor, n * interval.count * _MONTHS[interval.unit])


def first_after(anchor: int, interval: Interval, n: int, now: int) -> int:
    """The least number, ``n`` or greater, whose moment lies after ``now``."""
    fixed = _FIXED.get(interval.unit)
    if fixed is not None:
        return max(n, (now - anchor) // (interval.count * fixed) + 1)
    passed = _datetime(now).year * 12 + _datetime(now).month - _datetime(anchor).year * 12 - _datetime(anchor).month
    n = max(n, passed // (interval.count * _MONTHS[interval.unit]))
    while nth(anchor, interval, n) <= now:
        n += 1
    return n


def following_day(now: int, zone: ZoneInfo, *, by_day: bool) -> int:
    """When a declined charge is tried again: the next day at 03:00, or at 08:00 by day [P]."""
    return _next_day_at(now, zone, DAY_BEGINS if by_day else RETRY_HOUR)


def following_hour(now: int, zone: ZoneInfo, *, by_day: bool) -> int:
    """When a charge that ended in error is tried again: at the start of the next hour, by day if that is asked [P]."""
    local = _datetime(now).astimezone(zone)
    offset = int((local.utcoffset() or timedelta()).total_seconds() * 1000)
    moment = ((now + offset) // HOUR + 1) * HOUR - offset
    return by_day_from(moment, zone) if by_day else moment


def by_day_from(moment: int, zone: ZoneInfo) -> int:
    """The moment itself between 08:00 and 20:00, else the next 08:00 [P]."""
    hour = _datetime(moment).astimezone(zone).hour
    if DAY_BEGINS <= hour < DAY_ENDS:
        return moment
    if hour >= DAY_ENDS:
        return _next_day_at(moment, zone, DAY_BEGINS)
    local = _datetime(moment).astimezone(zone)
    return _moment_of(local, DAY_BEGINS)


def _next_day_at(now: int, zone: ZoneInfo, hour: int) -> int:
    return _moment_of(_datetime(now).astimezone(zone) + timedelta(days=1), hour)


def _moment_of(local: datetime, hour: int) -> int:
    """That hour of the local day. An hour that daylight saving leaves out is the one after it; of two it is the first."""
    wanted = local.replace(hour=hour, minute=0, second=0, microsecond=0, fold=0)
    return _milliseconds(wanted)


def _months_later(anchor: int, months: int) -> int:
    start = _datetime(anchor)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return _milliseconds(start.replace(year=year, month=month + 1, day=day))


def _datetime(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // 1000, UTC) + timedelta(milliseconds=moment % 1000)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=4096)  # a plan is shown with each of its subscriptions, and its moments with it
def iso(moment: int) -> str:
    """``2026-01-31T12:00:00.000Z``, as the platform writes moments [P]."""
    return f"{_datetime(moment):%Y-%m-%dT%H:%M:%S}.{moment % 1000:03d}Z"
