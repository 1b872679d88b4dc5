"""First charges and renewals at a real gateway, on a server whose clock is moved."""

from __future__ import annotations

from support import begateway as stand_in
from support.builders import a_price
from support.gateway_shop import A_PERIOD, CARD, PLAN, Merchant


def test_a_card_is_charged_and_renewed_by_its_token(merchant: Merchant) -> None:
    subscription = merchant.subscribe()
    assert (subscription["state"], subscription["paid_billing_cycles"]) == ("active", 1)
    assert subscription["last_transaction"]["uid"] == merchant.account.transactions[0].uid
    assert (subscription["card"]["last_4"], subscription["card"]["bin"]) == ("0000", "420000")
    for _ in range(3):
        merchant.advance(A_PERIOD)
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 4)
    assert merchant.statuses() == [(0, "successful"), (1, "successful"), (2, "successful"), (3, "successful")]
    cards = [seen.body["request"]["credit_card"] for seen in merchant.account.charges]
    assert all("token" in card for card in cards[1:])


def test_a_free_trial_verifies_the_card_and_the_first_renewal_charges_it(merchant: Merchant) -> None:
    trial = a_price(0, interval=7, unit="day")
    subscription = merchant.subscribe(plan={**PLAN, "trial": trial})
    assert subscription["state"] == "trial"
    assert merchant.account.taken == []
    merchant.advance("8d")
    assert merchant.read(subscription)["state"] == "active"
    assert [amount for _, amount, _ in merchant.account.taken] == [999]


def test_a_declined_card_fails(merchant: Merchant) -> None:
    subscription = merchant.subscribe(stand_in.DECLINED[0])
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Payment was declined")
    assert merchant.account.taken == []


def test_a_declined_renewal_is_tried_again_and_succeeds(merchant: Merchant) -> None:
    subscription = merchant.subscribe()
    merchant.account.declines = True
    merchant.advance(A_PERIOD)
    read = merchant.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    merchant.account.declines = False
    merchant.advance("2d")
    assert merchant.read(subscription)["state"] == "active"
    assert merchant.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


def test_a_renewal_that_asks_for_3_d_secure_counts_as_declined_and_is_tried_again(merchant: Merchant) -> None:
    subscription = merchant.subscribe()
    merchant.account.challenges = True
    merchant.advance(A_PERIOD)
    read = merchant.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    assert "redirect_url" not in read["last_transaction"]
    merchant.account.challenges = False
    merchant.advance("2d")
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert merchant.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


def test_a_test_plan_is_charged_in_the_sandbox(merchant: Merchant) -> None:
    subscription = merchant.subscribe(plan={**PLAN, "test": True})
    assert subscription["state"] == "active"
    assert merchant.account.seen == []
    assert [payment["gateway"] for payment in merchant.payments()] == ["sandbox"]


def test_a_refused_card_number_is_not_stored_or_logged(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.ECHOES_NUMBER)
    subscription = merchant.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Number … (…) is invalid")
    merchant.subscribe(expect=422, card={**CARD, "exp_month": "13"}, number=None)
