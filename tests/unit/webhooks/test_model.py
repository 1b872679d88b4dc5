"""The retry schedule of webhooks and the origin of a URL."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.webhooks.delivery import origin_of
from ecomcharge.webhooks.model import GIVEN_UP, PENDING, RETRIES, Webhook, fault_of_status, retry_delay, skip_attempts
from support.webhooks import DAY


@given(st.integers(1, RETRIES), st.integers())
def test_the_nth_retry_waits_n_to_the_fourth_plus_15_seconds_plus_a_random_delay(n: int, seed: int) -> None:
    delay = retry_delay(n, random.Random(seed))
    chance, rest = divmod(delay - (n**4 + 15) * 1000, (n + 1) * 1000)
    assert rest == 0
    assert 0 <= chance <= 29


def test_every_random_delay_occurs() -> None:
    assert {retry_delay(1, random.Random(seed)) // 2000 - 8 for seed in range(2000)} == set(range(30))


@given(
    attempts=st.integers(0, RETRIES), skipped=st.integers(0, RETRIES), length=st.integers(0, 40 * DAY * 1000), seed=st.integers()
)
def test_skipped_attempts_end_with_the_schedule_or_after_the_move(attempts: int, skipped: int, length: int, seed: int) -> None:
    webhook = Webhook(1, "whk_1", "sbs_1", 1, "created.subscription", "http://a/", "{}", PENDING, attempts, 0, 1000)
    webhook = msgspec.structs.replace(webhook, attempts_skipped=min(skipped, RETRIES - attempts))
    changed, last = skip_attempts(webhook, 1000, 1000 + length, "ConnectError", random.Random(seed))
    scheduled = changed.attempts + changed.attempts_skipped
    assert (changed.attempts, 1000 <= last <= 1000 + length) == (attempts, True)
    assert webhook.attempts_skipped < changed.attempts_skipped
    if changed.due_at is None:
        assert (changed.state, scheduled) == (GIVEN_UP, 1 + RETRIES)
    else:
        assert (changed.state, scheduled <= RETRIES) == (PENDING, True)
        assert last <= 1000 + length < changed.due_at


@pytest.mark.parametrize("rest", ["", "/", "/a/b", "?a=//b", "#a"])
def test_the_origin_of_a_url_ends_before_its_path(rest: str) -> None:
    assert origin_of(f"https://shop.example:8443{rest}") == "https://shop.example:8443"
    assert origin_of("nonsense") == ""


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (None, None),
        (200, None),
        (202, "answered 202; only 200 counts as delivered"),
        (307, "answered 307; redirects are not followed, and only 200 counts as delivered"),
        (400, None),
        (500, None),
    ],
)
def test_a_status_that_looks_like_a_success_is_explained(status: int | None, fault: str | None) -> None:
    assert fault_of_status(status) == fault
