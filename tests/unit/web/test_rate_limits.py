"""Counting of events, and the warning about a proxy that is not trusted."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ecomcharge.base.errors import TooManyRequests
from ecomcharge.web.rate_limits import MOST_ENTRIES, ClientAddresses, EventLimiter
from support.authentication import Caller


def test_events_are_counted_for_each_key_and_window() -> None:
    now = [100.0]
    limiter = EventLimiter("cards", 2, 3_600, lambda: now[0])
    for key in ("a", "a", "b", "b"):
        limiter.count(key)
    now[0] = 1_000.5
    with pytest.raises(TooManyRequests) as raised:
        limiter.count("a")
    assert (raised.value.policy, raised.value.quota, raised.value.window_seconds) == ("cards", 2, 3_600)
    assert raised.value.retry_after_seconds == 2_700
    now[0] = 3_700.0
    limiter.count("a")


def test_zero_means_no_limit() -> None:
    limiter = EventLimiter("cards", 0)
    for _ in range(1_000):
        limiter.count("a")


def test_the_number_of_keys_in_memory_is_limited() -> None:
    limiter = EventLimiter("cards", 1)
    for number in range(3 * MOST_ENTRIES):
        limiter.count(number)
    assert len(limiter._counts) <= MOST_ENTRIES


@pytest.mark.parametrize(("peer", "named"), [("10.0.0.7", "10.0.0.7"), ("::ffff:192.168.1.2", "192.168.1.2"), ("8.8.8.8", None)])
def test_one_warning_names_the_missing_setting(peer: str, named: str | None) -> None:
    addresses = ClientAddresses("127.0.0.1")
    with capture_logs() as lines:
        for client in range(100):
            addresses.of(Caller({"x-forwarded-for": f"203.0.113.{client}"}, peer))
    [line] = lines
    assert (line["log_level"], line["proxy"]) == ("warning", named)
    assert "--trusted-proxies" in line["event"]
    assert "203.0.113" not in str(line)


def test_a_trusted_proxy_and_a_client_without_a_proxy_cause_no_warning() -> None:
    addresses = ClientAddresses("127.0.0.1")
    with capture_logs() as lines:
        addresses.of(Caller({"x-forwarded-for": "203.0.113.1"}, "127.0.0.1"))
        addresses.of(Caller({}, "203.0.113.1"))
    assert lines == []
