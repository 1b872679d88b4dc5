"""3-D Secure at a real gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from support import begateway as stand_in
from support.gateway_shop import Story


@pytest.mark.parametrize(("answer", "state"), [("accept", "active"), ("refuse", "failed")])
def test_the_buyer_passes_3_d_secure_or_not_and_comes_back(story: Story, answer: str, state: str) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0], return_url="https://shop.example/thanks?a=1")
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("redirecting", "incomplete")
    redirect_url = subscription["redirect_url"]
    assert redirect_url == subscription["last_transaction"]["redirect_url"]
    back = httpx.get(f"{redirect_url}&answer={answer}").headers["location"]
    assert back == f"{story.server.url}/process/{story.payments()[0]['id']}"
    for _ in range(2):
        arrived = httpx.get(back)
        assert (arrived.status_code, arrived.headers["location"]) == (
            303,
            f"https://shop.example/thanks?a=1&id={subscription['id']}",
        )
    assert story.read(subscription)["state"] == state


def test_whoever_comes_back_before_passing_is_still_awaited(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    assert httpx.get(f"{story.server.url}/process/{story.payments()[0]['id']}").status_code == 200
    assert story.read(subscription)["state"] == "redirecting"
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    story.advance("25h")  # the buyer closed the browser: it is found at the end of the day
    assert story.read(subscription)["state"] == "active"


def test_an_abandoned_3_d_secure_step_expires(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    story.advance("25h")
    assert story.read(subscription)["state"] == "expired"
    assert story.statuses() == [(0, "expired")]


def test_many_who_come_back_at_once_count_one_payment(story: Story) -> None:
    subscription = story.subscribe(stand_in.CHALLENGED[0])
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    back = f"{story.server.url}/process/{story.payments()[0]['id']}"
    with ThreadPoolExecutor(8) as pool:
        assert {response.status_code for response in pool.map(httpx.get, [back] * 16)} == {200}
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
