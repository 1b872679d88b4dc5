"""The calendar of subscriptions: tables for what is known, properties for the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.subscriptions.schedule import (
    HOUR,
    LONGEST,
    UNITS,
    Interval,
    by_day_from,
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


def at(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


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
def test_periods_begin_where_the_calendar_says(start: str, interval: Interval, n: int, then: str) -> None:
    assert nth(at(start), interval, n) == at(then)


def test_a_hundred_years_of_months_keep_their_end() -> None:
    start = at("2026-01-31T10:00")
    for n in range(1200):
        moment = datetime.fromtimestamp(nth(start, Interval(1, "month"), n) / 1000, UTC)
        year, month = divmod(2026 * 12 + n, 12)
        assert (moment.year, moment.month, moment.hour) == (year, month + 1, 10)
        assert (moment + timedelta(days=1)).day == 1 or moment.day == 31


def test_a_hundred_years_of_hours_lie_an_hour_apart() -> None:
    start = at("2026-01-31T10:07:03.021")
    assert [nth(start, Interval(1, "hour"), n) - start for n in range(0, 876_600, 997)] == [
        n * HOUR for n in range(0, 876_600, 997)
    ]


@given(anchor=MOMENTS, interval=INTERVALS, n=st.integers(0, 20))
def test_periods_rise(anchor: int, interval: Interval, n: int) -> None:
    if interval.unit in ("month", "year") and n * interval.count > 120:
        n = 1
    assert nth(anchor, interval, n) < nth(anchor, interval, n + 1)


@given(anchor=MOMENTS, interval=INTERVALS, n=st.integers(0, 50), late=st.integers(0, 5 * 366 * DAY))
def test_the_next_period_is_the_first_that_lies_ahead(anchor: int, interval: Interval, n: int, late: int) -> None:
    now = anchor + late
    found = first_after(anchor, interval, n, now)
    assert found >= n
    assert nth(anchor, interval, found) > now or found == n
    assert found == n or nth(anchor, interval, found - 1) <= now


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
def test_a_declined_charge_is_tried_the_following_day(now: str, zone: str, by_day: bool, then: str) -> None:
    assert following_day(at(now, zone), ZoneInfo(zone), by_day=by_day) == at(then, zone)


def test_an_hour_that_daylight_saving_leaves_out_is_the_one_after_it() -> None:
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
def test_an_erred_charge_is_tried_at_the_start_of_the_following_hour(now: str, by_day: bool, then: str) -> None:
    assert following_hour(at(now), ZoneInfo("UTC"), by_day=by_day) == at(then)


def test_an_hour_begins_where_the_local_clock_says() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")  # half an hour off
    assert following_hour(at("2026-05-10T14:10", "Asia/Kolkata"), kolkata, by_day=False) == at("2026-05-10T15:00", "Asia/Kolkata")


@given(now=MOMENTS, zone=ZONE, by_day=st.booleans())
def test_a_retry_lies_ahead_and_not_far(now: int, zone: ZoneInfo, by_day: bool) -> None:
    next_day = following_day(now, zone, by_day=by_day)
    next_hour = following_hour(now, zone, by_day=by_day)
    assert now < next_day <= now + 34 * HOUR
    assert now < next_hour <= now + (14 * HOUR if by_day else HOUR)
    there = datetime.fromtimestamp(next_day / 1000, zone)
    assert there.date() == (datetime.fromtimestamp(now // 1000, zone) + timedelta(days=1)).date()
    assert there.hour in ((8,) if by_day else (3, 4))


@given(moment=MOMENTS, zone=ZONE)
def test_by_day_is_between_eight_and_twenty(moment: int, zone: ZoneInfo) -> None:
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
