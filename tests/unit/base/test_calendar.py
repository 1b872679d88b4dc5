"""The calendar of subscriptions: tables of known dates, and properties."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ecomcharge.base.calendar import (
    HOUR,
    LONGEST,
    UNITS,
    Interval,
    by_day_from,
    day_of_month_ends,
    first_after,
    following_day,
    following_hour,
    iso,
    nth,
)

DAY = 24 * HOUR
ZONES = [
    ZoneInfo(name) for name in ("UTC", "Europe/Minsk", "Europe/Warsaw", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
]
MOMENTS = st.integers(0, int(datetime(2090, 1, 1, tzinfo=UTC).timestamp() * 1000))
ZONE = st.sampled_from(ZONES)
INTERVALS = st.sampled_from(UNITS).flatmap(lambda unit: st.builds(Interval, st.integers(1, LONGEST[unit]), st.just(unit)))


DAYS_AT_MOST = {"hour": 1, "day": 1, "week": 7, "month": 31, "year": 366}


def utc(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def local_of(moment: int, zone: ZoneInfo) -> datetime:
    """The local time of the zone."""
    aware = datetime.fromtimestamp(moment // 1000, zone)
    return aware.replace(microsecond=moment % 1000 * 1000, tzinfo=None, fold=0)


def walked(local: datetime, interval: Interval, n: int) -> datetime:
    """The local time ``n`` intervals later, computed step by step over days or months."""
    steps = n * interval.count
    if interval.unit in ("day", "week"):
        day = timedelta(days=1)
        for _ in range(steps * (7 if interval.unit == "week" else 1)):
            local += day
        return local
    year, month, day_of_month = local.year, local.month, local.day
    for _ in range(steps * (12 if interval.unit == "year" else 1)):
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    while day_of_month > monthrange(year, month)[1]:
        day_of_month -= 1
    return local.replace(year=year, month=month, day=day_of_month)


def offsets_around(local: datetime, zone: ZoneInfo) -> list[timedelta]:
    """The UTC offsets of the zone within two days, in the order of time."""
    found = []
    for hours in range(-48, 49):
        offset = (local.replace(tzinfo=UTC) + timedelta(hours=hours)).astimezone(zone).utcoffset()
        assert offset is not None
        if offset not in found:
            found.append(offset)
    return found


def moments_of(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """Every moment in UTC at which the local time is ``local``."""
    tried = {local.replace(tzinfo=UTC) - offset for offset in offsets_around(local, zone)}
    return sorted(moment for moment in tried if moment.astimezone(zone).replace(tzinfo=None, fold=0) == local)


def exists(local: datetime, zone: ZoneInfo) -> bool:
    return bool(moments_of(local, zone))


def searched(local: datetime, zone: ZoneInfo) -> int:
    """The moment of a local time. Of two moments it is the first; a time skipped by a clock change is moved by the gap."""
    moments = moments_of(local, zone)
    if not moments:
        before, after = offsets_around(local, zone)
        moments = moments_of(local + (after - before), zone)
    return (moments[0] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def at(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


EVERY_ZONE = st.sampled_from(
    [
        *("Asia/Kolkata", "America/New_York", "Europe/Minsk", "Pacific/Apia", "Africa/Casablanca", "Australia/Lord_Howe"),
        *sorted(available_timezones()),
    ]
).map(ZoneInfo)
CALENDAR_INTERVALS = INTERVALS.filter(lambda interval: interval.unit != "hour")
FEW_YEARS = st.integers(0, 40 * 366).map(lambda days: days * DAY)
NEW_YORK = "America/New_York"  # 2027: 02:00 to 03:00 on 14 March, 02:00 to 01:00 on 7 November


@pytest.mark.parametrize(
    ("start", "interval", "n", "then"),
    [
        ("2026-01-31T10:00", Interval(1, "month"), 1, "2026-02-28T10:00"),
        ("2026-01-31T10:00", Interval(1, "month"), 2, "2026-03-31T10:00"),
        ("2026-01-31T10:00", Interval(1, "month"), 3, "2026-04-30T10:00"),
        ("2028-01-31T10:00", Interval(1, "month"), 1, "2028-02-29T10:00"),
        ("2027-11-30T23:59:59.999", Interval(3, "month"), 1, "2028-02-29T23:59:59.999"),
        ("2028-02-29T00:00", Interval(1, "year"), 1, "2029-02-28T00:00"),
        ("2028-02-29T00:00", Interval(1, "year"), 4, "2032-02-29T00:00"),
        ("2099-12-31T00:00", Interval(2, "month"), 1, "2100-02-28T00:00"),
        ("2026-12-31T23:00", Interval(1, "hour"), 1, "2027-01-01T00:00"),
        ("2026-03-29T00:30", Interval(1, "day"), 1, "2026-03-30T00:30"),
        ("2026-02-27T12:00", Interval(2, "week"), 1, "2026-03-13T12:00"),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Minsk", "Asia/Kolkata"])
def test_periods_begin_on_known_dates(start: str, interval: Interval, n: int, then: str, zone: str) -> None:
    assert nth(at(start, zone), interval, n, ZoneInfo(zone)) == at(then, zone)


@pytest.mark.parametrize(
    ("zone", "start", "unit", "then"),
    [
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "month", ["2027-03-31T21:30Z", "2027-04-30T21:30Z"]),
        ("America/New_York", "2028-02-29T20:30-05:00", "month", ["2028-03-30T00:30Z", "2028-04-30T00:30Z"]),
        ("Europe/Minsk", "2027-03-01T00:30+03:00", "year", ["2028-02-29T21:30Z", "2029-02-28T21:30Z"]),
        ("America/New_York", "2027-03-13T02:30-05:00", "day", ["2027-03-14T07:30Z", "2027-03-15T06:30Z"]),  # 03:30, 02:30
        ("America/New_York", "2027-02-14T02:30-05:00", "month", ["2027-03-14T07:30Z", "2027-04-14T06:30Z"]),
        ("America/New_York", "2027-11-06T01:30-04:00", "day", ["2027-11-07T05:30Z", "2027-11-08T06:30Z"]),  # the first 01:30
        ("America/New_York", "2027-10-31T01:30-04:00", "week", ["2027-11-07T05:30Z", "2027-11-14T06:30Z"]),
        ("America/New_York", "2027-11-07T01:30-05:00", "day", ["2027-11-08T06:30Z", "2027-11-09T06:30Z"]),  # the second one
        ("America/New_York", "2027-03-14T01:30-05:00", "hour", ["2027-03-14T07:30Z", "2027-03-14T08:30Z"]),
        ("America/New_York", "2027-03-13T12:00-05:00", "week", ["2027-03-20T16:00Z", "2027-03-27T16:00Z"]),
        ("Australia/Lord_Howe", "2027-10-02T02:10+10:30", "day", ["2027-10-02T15:40Z", "2027-10-03T15:10Z"]),  # 02:40, 02:10
        ("Pacific/Apia", "2011-12-29T10:00-10:00", "day", ["2011-12-30T20:00Z", "2011-12-30T20:00Z"]),  # no 30 December
        ("Pacific/Apia", "2011-11-30T10:00-10:00", "month", ["2011-12-30T20:00Z", "2012-01-29T20:00Z"]),
    ],
)
def test_periods_keep_the_local_time(zone: str, start: str, unit: str, then: list[str]) -> None:
    anchor = utc(start)
    assert nth(anchor, Interval(1, unit), 0, ZoneInfo(zone)) == anchor
    assert [nth(anchor, Interval(1, unit), n, ZoneInfo(zone)) for n in (1, 2)] == [utc(text) for text in then]


@pytest.mark.parametrize(
    ("start", "trial", "interval", "then"),
    [
        ("2027-01-31T10:00", Interval(1, "month"), Interval(1, "month"), ["02-28T10:00", "03-31T10:00", "04-30T10:00"]),
        ("2027-01-31T10:00", Interval(1, "month"), Interval(3, "month"), ["02-28T10:00", "05-31T10:00", "08-31T10:00"]),
        ("2027-02-14T02:30", Interval(1, "month"), Interval(1, "month"), ["03-14T03:30", "04-14T02:30", "05-14T02:30"]),
        ("2027-03-13T02:30", Interval(1, "day"), Interval(1, "month"), ["03-14T03:30", "04-14T02:30", "05-14T02:30"]),
        ("2027-01-30T10:00", Interval(1, "day"), Interval(1, "month"), ["01-31T10:00", "02-28T10:00", "03-31T10:00"]),
        ("2027-01-30T12:00", Interval(24, "hour"), Interval(1, "month"), ["01-31T12:00", "02-28T12:00", "03-31T12:00"]),
        ("2027-03-13T12:00", Interval(24, "hour"), Interval(1, "day"), ["03-14T13:00", "03-15T13:00", "03-16T13:00"]),
        ("2027-03-13T12:00", Interval(1, "day"), Interval(24, "hour"), ["03-14T12:00", "03-15T12:00", "03-16T12:00"]),
        ("2027-01-31T10:00", Interval(1, "month"), Interval(1, "week"), ["02-28T10:00", "03-07T10:00", "03-14T10:00"]),
    ],
)
def test_periods_after_a_trial_are_counted_from_the_first_date(
    start: str, trial: Interval, interval: Interval, then: list[str]
) -> None:
    anchor, zone = at(start, NEW_YORK), ZoneInfo(NEW_YORK)
    assert [nth(anchor, interval, n, zone, after=trial) for n in range(3)] == [at(f"2027-{text}", NEW_YORK) for text in then]


def test_a_year_after_a_trial_of_a_month_ends_on_the_last_day() -> None:
    found = [nth(at("2027-01-31"), Interval(1, "year"), n, ZoneInfo("UTC"), after=Interval(1, "month")) for n in (0, 1, 2)]
    assert found == [at("2027-02-28"), at("2028-02-29"), at("2029-02-28")]


def test_an_anchor_at_the_end_of_the_month_stays_there() -> None:
    zone = ZoneInfo("UTC")
    first, short, usual = at("2027-01-31T10:00"), at("2027-02-28T10:00"), at("2027-03-28T10:00")
    assert day_of_month_ends(first, None, short, zone) == 31
    assert day_of_month_ends(short, 30, at("2028-02-29T10:00"), zone) == 30
    assert day_of_month_ends(first, None, usual, zone) is None
    assert day_of_month_ends(short, None, at("2027-04-30"), zone) is None
    assert nth(short, Interval(1, "month"), 1, zone, day=31) == at("2027-03-31T10:00")
    assert nth(short, Interval(1, "month"), 2, zone, day=31) == at("2027-04-30T10:00")


def test_a_hundred_years_of_months_keep_the_end_of_the_month() -> None:
    start = at("2026-01-31T10:00")
    for n in range(1200):
        moment = datetime.fromtimestamp(nth(start, Interval(1, "month"), n, ZoneInfo("UTC")) / 1000, UTC)
        year, month = divmod(2026 * 12 + n, 12)
        assert (moment.year, moment.month, moment.hour) == (year, month + 1, 10)
        assert (moment + timedelta(days=1)).day == 1 or moment.day == 31


@given(anchor=MOMENTS, n=st.integers(0, 876_600), count=st.integers(1, 48), zone=EVERY_ZONE)
def test_hours_ignore_clock_changes(anchor: int, n: int, count: int, zone: ZoneInfo) -> None:
    assert nth(anchor, Interval(count, "hour"), n, zone) - anchor == n * count * HOUR


@given(anchor=MOMENTS, interval=CALENDAR_INTERVALS, n=st.integers(1, 400), zone=EVERY_ZONE)
@example(utc("2011-11-30T10:00-10:00"), Interval(1, "day"), 30, ZoneInfo("Pacific/Apia"))
def test_periods_agree_with_an_independent_calculation(anchor: int, interval: Interval, n: int, zone: ZoneInfo) -> None:
    local = local_of(anchor, zone)
    n = min(n, 40 * 366 // DAYS_AT_MOST[interval.unit] // interval.count + 1)
    wanted = walked(local, interval, n)
    found = nth(anchor, interval, n, zone)
    assert found == searched(wanted, zone)
    moved = local_of(found, zone) - wanted
    assert (moved == timedelta(0)) == exists(wanted, zone)
    assert timedelta(0) <= moved <= timedelta(days=1)


@given(anchor=MOMENTS, interval=INTERVALS, n=st.integers(0, 20), zone=EVERY_ZONE, trial=st.none() | INTERVALS)
@example(utc("2011-12-29T10:00-10:00"), Interval(1, "day"), 1, ZoneInfo("Pacific/Apia"), None)
def test_period_starts_are_ascending(anchor: int, interval: Interval, n: int, zone: ZoneInfo, trial: Interval | None) -> None:
    if interval.unit in ("month", "year") and n * interval.count > 120:
        n = 1
    here, there = (nth(anchor, interval, each, zone, after=trial) for each in (n, n + 1))
    if here == there:  # a country skipped a whole day
        assert interval == Interval(1, "day")
        assert not exists(local_of(here, zone) - timedelta(days=1), zone)
    else:
        assert here < there


@given(anchor=MOMENTS, interval=INTERVALS, n=st.integers(0, 50), late=FEW_YEARS, zone=EVERY_ZONE)
def test_the_next_period_is_the_first_in_the_future(anchor: int, interval: Interval, n: int, late: int, zone: ZoneInfo) -> None:
    now = anchor + late

    def start_of(period: int) -> int:
        return nth(anchor, interval, period, zone)

    assume(n * interval.count * DAYS_AT_MOST[interval.unit] < 200 * 366)
    found = first_after(start_of, n, now)
    assert found >= n
    assert start_of(found) > now
    assert found == n or start_of(found - 1) <= now


def test_the_next_period_is_found_without_counting_every_one() -> None:
    asked: list[int] = []

    def start_of(period: int) -> int:
        asked.append(period)
        return nth(0, Interval(1, "hour"), period, ZoneInfo(NEW_YORK))

    assert first_after(start_of, 1, 876_600 * HOUR) == 876_601
    assert len(asked) < 50


@pytest.mark.parametrize(
    ("now", "zone", "by_day", "then"),
    [
        ("2026-05-10T14:00", "UTC", False, "2026-05-11T03:00"),
        ("2026-05-10T00:00", "UTC", False, "2026-05-11T03:00"),
        ("2026-05-10T23:59:59.999", "UTC", True, "2026-05-11T08:00"),
        ("2026-12-31T14:00", "Europe/Minsk", False, "2027-01-01T03:00"),
        ("2026-03-28T14:00", "Europe/Warsaw", False, "2026-03-29T03:00"),  # clocks go from 02:00 to 03:00
        ("2026-10-24T14:00", "Europe/Warsaw", False, "2026-10-25T03:00"),  # clocks go from 03:00 back to 02:00
    ],
)
def test_a_declined_charge_is_retried_the_following_day(now: str, zone: str, by_day: bool, then: str) -> None:
    assert following_day(at(now, zone), ZoneInfo(zone), by_day=by_day) == at(then, zone)


def test_an_hour_skipped_by_daylight_saving_is_moved_by_one_hour() -> None:
    helsinki = ZoneInfo("Europe/Helsinki")  # on 29 March 2026 clocks go from 03:00 to 04:00
    then = following_day(at("2026-03-28T14:00", "Europe/Helsinki"), helsinki, by_day=False)
    assert datetime.fromtimestamp(then / 1000, helsinki).hour == 4


@pytest.mark.parametrize(
    ("now", "by_day", "then"),
    [
        ("2026-05-10T14:00", False, "2026-05-10T15:00"),
        ("2026-05-10T14:59:59.999", False, "2026-05-10T15:00"),
        ("2026-05-10T23:10", False, "2026-05-11T00:00"),
        ("2026-05-10T18:10", True, "2026-05-10T19:00"),
        ("2026-05-10T19:00", True, "2026-05-11T08:00"),
        ("2026-05-10T23:10", True, "2026-05-11T08:00"),
        ("2026-05-10T03:10", True, "2026-05-10T08:00"),
        ("2026-05-10T07:00", True, "2026-05-10T08:00"),
    ],
)
def test_a_charge_with_an_error_is_retried_at_the_start_of_the_following_hour(now: str, by_day: bool, then: str) -> None:
    assert following_hour(at(now), ZoneInfo("UTC"), by_day=by_day) == at(then)


def test_an_hour_begins_by_the_local_clock() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")  # the offset is half an hour
    assert following_hour(at("2026-05-10T14:10", "Asia/Kolkata"), kolkata, by_day=False) == at("2026-05-10T15:00", "Asia/Kolkata")


@given(now=MOMENTS, zone=ZONE, by_day=st.booleans())
def test_a_retry_is_in_the_near_future(now: int, zone: ZoneInfo, by_day: bool) -> None:
    next_day = following_day(now, zone, by_day=by_day)
    next_hour = following_hour(now, zone, by_day=by_day)
    assert now < next_day <= now + 34 * HOUR
    assert now < next_hour <= now + (14 * HOUR if by_day else HOUR)
    there = datetime.fromtimestamp(next_day / 1000, zone)
    assert there.date() == (datetime.fromtimestamp(now // 1000, zone) + timedelta(days=1)).date()
    assert there.hour in ((8,) if by_day else (3, 4))


@given(moment=MOMENTS, zone=ZONE)
def test_daytime_is_from_eight_to_twenty(moment: int, zone: ZoneInfo) -> None:
    found = by_day_from(moment, zone)
    local = datetime.fromtimestamp(found / 1000, zone)
    assert 8 <= local.hour < 20
    assert moment <= found <= moment + 13 * HOUR
    if 8 <= datetime.fromtimestamp(moment // 1000, zone).hour < 20:
        assert found == moment


@given(moment=MOMENTS)
def test_moments_are_written_with_milliseconds_and_z(moment: int) -> None:
    text = iso(moment)
    assert text.endswith("Z")
    assert len(text) == 24
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)
