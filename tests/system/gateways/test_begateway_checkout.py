"""The payment page of a shop with a real gateway."""

from __future__ import annotations

import re

import httpx

from support import begateway as stand_in
from support.gateway_shop import A_PERIOD, CARD, Merchant


def test_the_payment_page_charges_and_hides_stamp_and_bin(merchant: Merchant) -> None:
    subscription = merchant.subscribe(None)
    form = page(subscription["redirect_url"], {**CARD})
    assert form.status_code == 303
    read = merchant.read(subscription)
    assert (read["state"], read["card"]["last_4"]) == ("active", "0000")
    assert (read["card"]["stamp"], read["card"]["bin"]) == (None, None)
    merchant.advance(A_PERIOD)
    card = merchant.read(subscription)["card"]
    assert (card["stamp"], card["bin"]) == (None, None)


def test_the_payment_page_sends_the_buyer_to_3_d_secure_and_back(merchant: Merchant) -> None:
    subscription = merchant.subscribe(None)
    form = page(subscription["redirect_url"], {**CARD, "number": stand_in.CHALLENGED[0]})
    assert form.headers["location"].endswith(merchant.account.transactions[0].to_json("")["redirect_url"])
    back = httpx.get(f"{form.headers['location']}&answer=accept").headers["location"]
    assert httpx.get(back).status_code == 303
    assert merchant.read(subscription)["state"] == "active"


def page(url: str, card: dict[str, str]) -> httpx.Response:
    """Fill in the form of a payment page and submit it."""
    page = httpx.get(url).text
    hidden = re.search(r"<input[^>]*form_token[^>]*>", page)
    assert hidden is not None
    form_token = re.findall(r"[0-9a-f]{32,}", hidden[0])[0]
    return httpx.post(url, data={**card, "form_token": form_token, "email": "john@example.com"})
