"""Payments that succeed too late are refunded."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from support import begateway as stand_in
from support.gateway_shop import PLAN, Merchant
from support.waiting import eventually


def test_money_of_a_canceled_3_d_secure_step_is_refunded_at_the_next_lookup(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    merchant.advance("1h")  # the buyer closed the browser
    assert_refunded(merchant, subscription, "canceled")


def assert_refunded(merchant: Merchant, subscription: dict[str, Any], state: str) -> None:
    """Check that the payment is refunded in the gateway, the subscription, an event and its webhook."""
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"], read["renew_at"]) == (state, 0, None)
    assert read["last_transaction"]["status"] == "successful"
    assert read["last_transaction"]["message"] == "Payment was not needed any more and was refunded"
    assert "redirect_url" not in read["last_transaction"]
    assert merchant.statuses() == [(0, "refunded")]
    [payment] = merchant.payments()
    assert merchant.account.refunded == [(payment["id"], 999)]
    types = [event["type"] for event in merchant.http.get(f"/events?object={subscription['id']}").json()]
    assert types[0] == "refunded.subscription"
    assert "created.subscription" not in types


def test_money_of_a_canceled_3_d_secure_step_is_refunded_when_the_buyer_returns(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0], return_url="https://shop.example/thanks")
    merchant.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    back = httpx.get(f"{subscription['redirect_url']}&answer=accept").headers["location"]
    for _ in range(2):
        assert httpx.get(back).status_code == 303
    assert_refunded(merchant, subscription, "canceled")


def test_3_d_secure_passed_after_its_deadline_is_refunded_when_the_buyer_returns(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.advance("25h")
    assert merchant.read(subscription)["state"] == "expired"
    back = httpx.get(f"{subscription['redirect_url']}&answer=accept").headers["location"]
    httpx.get(back)
    assert_refunded(merchant, subscription, "expired")


def test_3_d_secure_passed_after_its_deadline_is_found_a_day_later(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.advance("25h")
    httpx.get(f"{subscription['redirect_url']}&answer=accept")  # the buyer closed the browser
    merchant.advance("25h")
    assert_refunded(merchant, subscription, "expired")


def test_an_abandoned_charge_that_succeeded_is_refunded(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.SILENT_AFTER)
    subscription = merchant.subscribe()
    [transaction] = merchant.account.transactions
    transaction.order, order = "hidden", transaction.order  # the gateway does not find it for an hour
    merchant.advance("20min")
    assert merchant.read(subscription)["state"] == "failed"
    transaction.order = order
    merchant.advance("25h")
    assert_refunded(merchant, subscription, "failed")


def test_an_abandoned_renewal_found_before_the_next_attempt_counts_as_paid(merchant: Merchant) -> None:
    subscription = merchant.subscribe(plan={**PLAN, "number_payment_attempts": 10})
    merchant.account.fail(stand_in.SILENT_AFTER)
    merchant.account.declines = True
    merchant.advance("43200min")  # it is charged, and looked up a minute later
    transaction = merchant.account.transactions[-1]
    transaction.status, transaction.order, order = "successful", "hidden", transaction.order
    merchant.advance("20min")
    assert merchant.read(subscription)["state"] == "rescuing"
    merchant.advance("1h")  # declined: the next attempts are at 03:00 of the following days
    assert merchant.read(subscription)["state"] == "failed_attempt"
    transaction.order = order
    merchant.advance("24h")
    read = merchant.read(subscription)
    assert merchant.account.refunded == []
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)


@pytest.mark.parametrize("fault", [stand_in.SILENT_AFTER, stand_in.FAULT_500_AFTER, stand_in.DROPPED_UNREAD])
def test_a_refund_whose_response_is_lost_is_made_once(merchant: Merchant, fault: str) -> None:
    subscription = canceled_and_paid(merchant)
    merchant.account.fail(fault)
    merchant.advance("1h")
    assert merchant.statuses() == [(0, "refunding")]
    assert merchant.read(subscription)["last_transaction"]["message"] == "Payment is not needed any more and is being refunded"
    merchant.advance("20min")
    assert_refunded(merchant, subscription, "canceled")


def test_a_refund_that_the_gateway_refuses_is_reported(merchant: Merchant) -> None:
    merchant.account.refuses_refunds = True
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    merchant.advance("6h")
    assert merchant.statuses() == [(0, "refund_failed")]
    types = [event["type"] for event in merchant.http.get(f"/events?object={subscription['id']}").json()]
    assert types[0] == "refund_failed.subscription"
    message = merchant.read(subscription)["last_transaction"]["message"]
    assert message == "Payment is not needed any more and could not be refunded"
    assert "the operator must return the money" in merchant.server.log()
    counted = re.compile(r'charges_total\{kind="first",outcome="refund_failed"\} [1-9]')
    eventually(lambda: counted.search(merchant.http.get("/metrics").text))
    merchant.account.transactions.clear()  # for the comparison at the end: the operator refunded it


def canceled_and_paid(merchant: Merchant) -> dict[str, Any]:
    """A subscription whose buyer passes 3-D Secure after the cancel."""
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.http.post(f"/subscriptions/{subscription['id']}/cancel", json={"cancel_reason": "Too late"})
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    return subscription


def test_a_refund_that_ends_in_error_is_made_again(merchant: Merchant) -> None:
    merchant.account.refund_statuses.extend(["error", "failed"])
    subscription = canceled_and_paid(merchant)
    merchant.advance("4h")
    assert_refunded(merchant, subscription, "canceled")


def test_the_rest_of_a_partly_refunded_payment_is_refunded(merchant: Merchant) -> None:
    subscription = canceled_and_paid(merchant)
    [payment] = merchant.account.transactions
    request = {"parent_uid": payment.uid, "amount": 100, "reason": "by the back office", "tracking_id": payment.order}
    merchant.account.refund(request, "back-office")
    merchant.advance("1h")
    assert merchant.statuses() == [(0, "refunded")]
    assert merchant.account.refunded == [(payment.order, 100), (payment.order, 899)]
    assert merchant.read(subscription)["state"] == "canceled"


def test_a_response_that_is_not_a_refund_is_not_accepted_as_one(merchant: Merchant) -> None:
    merchant.account.shows_payment_for_refund = True
    subscription = canceled_and_paid(merchant)
    merchant.advance("1h")
    assert merchant.statuses() == [(0, "refunding")]
    merchant.advance("20min")  # it is found
    assert_refunded(merchant, subscription, "canceled")


def test_a_payment_is_looked_up_after_a_week_of_gateway_errors(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.CHALLENGED[0])
    merchant.advance("25h")
    httpx.get(f"{subscription['redirect_url']}&answer=accept")
    merchant.account.fail(*[stand_in.UNAUTHORIZED] * 175, look_up=True)
    merchant.advance("10d")
    assert merchant.statuses() == [(0, "expired")]
    merchant.advance("10d")
    assert merchant.statuses() == [(0, "refunded")]
