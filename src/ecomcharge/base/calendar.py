"""The calendar of subscriptions: when periods begin and when a failed charge is tried again. Pure.

Moments are UTC milliseconds. Days, weeks, months and years are added to the local date and time of a time zone, and the sum
is converted to UTC once: 31 January, 28 February, 31 March, at the same time of day [D]. A local time that daylight saving
time skips moves forward by the length of the gap. Of a local time that occurs twice the first counts [D]. Hours are absolute.
"""

from __future__ import annotations

import calendar
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

HOUR: Final = 60 * 60 * 1000
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "year": 12}
UNITS: Final = ("hour", *_DAYS, *_MONTHS)
LONGEST: Final = {"hour": 87_600, "day": 3_650, "week": 520, "month": 120, "year": 10}  # ten years of each [D]

RETRY_HOUR: Final = 3  # [P]
DAY_BEGINS: Final = 8  # with prevent_payments_at_night [P]
DAY_ENDS: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """A number of calendar units: ``Interval(3, "month")``."""

    count: int
    unit: str


def nth(anchor: int, interval: Interval, n: int, zone: ZoneInfo, *, after: Interval | None = None, day: int | None = None) -> int:
    """The moment ``n`` intervals after ``anchor``, counted in ``zone``.

    ``after`` is an interval before them, such as a trial. The months of both are added before the day is limited to the
    length of the month. ``day`` replaces the anchor's day of the month: 31 for an anchor on 28 February that means the end
    of the month.
    """
    if after is not None:
        if after.unit in _MONTHS and interval.unit in _MONTHS:
            months = after.count * _MONTHS[after.unit] + n * interval.count * _MONTHS[interval.unit]
            return nth(anchor, Interval(months, "month"), 1, zone, day=day)
        if "hour" in (after.unit, interval.unit):
            return nth(nth(anchor, after, 1, zone, day=day), interval, n, zone)
        return _moment(_later(_later(_local(anchor, zone), after, 1, day), interval, n, None), zone)
    if n == 0:  # also where the anchor is the second of two equal local times
        return anchor
    if interval.unit == "hour":
        return anchor + n * interval.count * HOUR
    return _moment(_later(_local(anchor, zone), interval, n, day), zone)


def first_after(start_of: Callable[[int], int], n: int, now: int) -> int:
    """The least number, ``n`` or greater, whose ``start_of`` is later than ``now``. ``start_of`` must never decrease."""
    if start_of(n) > now:
        return n
    ahead = 1
    while start_of(n + ahead) <= now:
        ahead *= 2
    return bisect_right(range(n + ahead), now, lo=n + ahead // 2, key=start_of)


def day_of_month_ends(anchor: int, day: int | None, moment: int, zone: ZoneInfo) -> int | None:
    """The day of the month to count from when ``moment`` becomes the anchor: 31 after 31 January and 28 February.

    ``None`` unless ``moment`` is the last day of a month that is shorter than the day of ``anchor`` (or ``day``, as in
    ``nth``).
    """
    local = _local(moment, zone)
    wanted = day or _local(anchor, zone).day
    return wanted if wanted > local.day == calendar.monthrange(local.year, local.month)[1] else None


def following_day(now: int, zone: ZoneInfo, *, by_day: bool) -> int:
    """When a declined charge is tried again: the next day at 03:00, or at 08:00 by day [P]."""
    return _next_day_at(now, zone, DAY_BEGINS if by_day else RETRY_HOUR)


def following_hour(now: int, zone: ZoneInfo, *, by_day: bool) -> int:
    """When a charge that ended in error is tried again: at the start of the next hour, by day if the plan requires it [P]."""
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
    """The moment of an hour of the local day. For a skipped hour it is the next one; of two equal hours it is the first."""
    wanted = local.replace(hour=hour, minute=0, second=0, microsecond=0, fold=0)
    return _milliseconds(wanted)


def _later(local: datetime, interval: Interval, n: int, day: int | None) -> datetime:
    """A local time ``n`` intervals of days, weeks, months or years later."""
    if interval.unit in _DAYS:
        return local + timedelta(days=n * interval.count * _DAYS[interval.unit])
    months = local.year * 12 + local.month - 1 + n * interval.count * _MONTHS[interval.unit]
    year, month = divmod(months, 12)
    return local.replace(year=year, month=month + 1, day=min(day or local.day, calendar.monthrange(year, month + 1)[1]))


def _local(moment: int, zone: ZoneInfo) -> datetime:
    """The date and time that clocks in ``zone`` show, without a time zone."""
    return _datetime(moment).astimezone(zone).replace(tzinfo=None)


def _moment(local: datetime, zone: ZoneInfo) -> int:
    """The moment at which clocks in ``zone`` show ``local``.

    With ``fold=0`` Python takes the first of two equal local times. A skipped local time gets the UTC offset from before the
    gap (PEP 495), which moves it forward by the length of the gap.
    """
    return _milliseconds(local.replace(tzinfo=zone, fold=0))


def _datetime(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // 1000, UTC) + timedelta(milliseconds=moment % 1000)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def parse_moment(text: str) -> int:
    """UTC milliseconds of an ISO 8601 moment; without an offset it is UTC. Raises ``ValueError``."""
    moment = datetime.fromisoformat(text)
    return _milliseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


@lru_cache(maxsize=4096)  # each subscription contains its plan, so the same moments are written often
def iso(moment: int) -> str:
    """``2026-01-31T12:00:00.000Z``, as the platform writes moments [P]."""
    return f"{datetime.fromtimestamp(moment // 1000, UTC).isoformat()[:-6]}.{moment % 1000:03d}Z"
