"""The preference ``stale`` of RFC 7240."""

from __future__ import annotations

import time

import pytest

from ecomcharge.web.stale_reads import stale_seconds_of


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("stale=5", 5),
        ("STALE = 5", 5),
        ('stale="5"', 5),
        ("stale=5; reason=report", 5),
        ("respond-async, wait=3,stale=4", 4),
        (',, foo="a, stale=9"; b="\\"", stale=4', 4),
        ("stale=601", 600),
        ("stale=7, stale=5", 7),
        ("stale=soon, stale=5", 0),  # the first one counts
        *((text, 0) for text in ("", "stale", "stale=", 'stale=""', "stale=0", "stale=-1", "stale=1.5", "stale=5s", "stale=5 5")),
        *((text, 0) for text in ('stale="5', 'foo="a, stale=5', "foo; stale=5", '"stale=5"', "stale=٥", "stale=1234567890")),
    ],
)
def test_the_first_preference_counts_and_what_is_not_understood_is_ignored(prefer: str, seconds: int) -> None:
    assert stale_seconds_of(prefer) == seconds


@pytest.mark.parametrize("text", ['"', '"\\', "; ", ", ", " ", "a", "stale"])
def test_a_long_header_is_read_in_linear_time(text: str) -> None:
    started = time.process_time()
    assert stale_seconds_of(text * 100_000) == 0
    assert time.process_time() - started < 1
