"""3-D Secure at a real gateway."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ecomcharge.checkout.look_ups import LOOK_UP_SECONDS
from support import begateway as stand_in
from support.gateway_shop import Merchant
from support.waiting import eventually


@pytest.mark.parametrize(("answer", "state"), [("accept", "active"), ("refuse", "failed")])
def test_the_buyer_returns_after_passed_and_failed_3_d_secure(merchant: Merchant, answer: str, state: str) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0], return_url="https://shop.example/thanks?a=1")
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("redirecting", "incomplete")
    redirect_url = subscription["redirect_url"]
    assert redirect_url == subscription["last_transaction"]["redirect_url"]
    back = httpx.get(f"{redirect_url}&answer={answer}").headers["location"]
    assert back == f"{merchant.server.url}/process/{merchant.payments()[0]['id']}"
    for _ in range(2):
        arrived = httpx.get(back)
        assert (arrived.status_code, arrived.headers["location"]) == (
            303,
            f"https://shop.example/thanks?a=1&id={subscription['id']}",
        )
    assert merchant.read(subscription)["state"] == state


def test_a_buyer_who_returns_before_3_d_secure_is_decided_sees_a_waiting_page(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    assert httpx.get(f"{merchant.server.url}/process/{merchant.payments()[0]['id']}").status_code == 200
    assert merchant.read(subscription)["state"] == "redirecting"
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    merchant.advance("25h")  # the buyer closed the browser: it is found at the end of the day
    assert merchant.read(subscription)["state"] == "active"


def test_many_visits_of_a_waiting_page_ask_the_gateway_once_in_three_seconds(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    page = f"{merchant.server.url}/process/{merchant.payments()[0]['id']}"
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert {response.status_code for response in pool.map(httpx.get, [page] * 40)} == {200}
    assert len(merchant.account.look_ups) <= 1 + (time.monotonic() - started) // LOOK_UP_SECONDS
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    assert eventually(lambda: httpx.get(page).status_code == 200 and merchant.read(subscription)["state"] == "active", 10)


def test_an_abandoned_3_d_secure_step_expires(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.advance("25h")
    assert merchant.read(subscription)["state"] == "expired"
    assert merchant.statuses() == [(0, "expired")]


def test_many_concurrent_returns_of_a_buyer_count_one_payment(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    back = f"{merchant.server.url}/process/{merchant.payments()[0]['id']}"
    with ThreadPoolExecutor(8) as pool:
        assert {response.status_code for response in pool.map(httpx.get, [back] * 16)} == {200}
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
