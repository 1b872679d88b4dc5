"""Counting of events, and the warning about a proxy that is not trusted."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from ecomcharge.base.errors import TooManyRequests
from ecomcharge.web.rate_limits import AddressRateLimiter, ClientAddresses, EventLimiter
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


def test_events_of_many_other_keys_neither_remove_a_count_nor_add_to_one() -> None:
    limiter = EventLimiter("cards", 5)
    for _ in range(5):
        limiter.count("attacker")
    for number in range(30_000):
        limiter.count(number)
    with pytest.raises(TooManyRequests):
        limiter.count("attacker")
    limiter.count("buyer")


def test_an_event_can_be_taken_back() -> None:
    limiter = EventLimiter("cards", 1)
    for _ in range(5):
        limiter.count("a")
        limiter.take_back("a")
    limiter.count("a")
    limiter.take_back("b")
    with pytest.raises(TooManyRequests):
        limiter.count("a")


def test_the_networks_of_an_ipv6_site_share_a_limit() -> None:
    limiter = AddressRateLimiter("failed-logins", 2, ClientAddresses(""))

    def network(number: int, site: int = 1) -> Caller:
        return Caller({}, f"2001:db8:{site:x}:{number:x}::1")

    for number in range(20):
        limiter.count(network(number))
    with pytest.raises(TooManyRequests):
        limiter.count(network(20))
    limiter.count(network(20, site=2))


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
