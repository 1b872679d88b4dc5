"""First charges and renewals by a real gateway, on a server whose clock is moved."""

from __future__ import annotations

from support import begateway as stand_in
from support.gateway_shop import A_PERIOD, CARD, PLAN, Story


def test_a_card_is_charged_and_renewed_by_its_token(story: Story) -> None:
    subscription = story.subscribe()
    assert (subscription["state"], subscription["paid_billing_cycles"]) == ("active", 1)
    assert subscription["last_transaction"]["uid"] == story.account.transactions[0].uid
    assert (subscription["card"]["last_4"], subscription["card"]["bin"]) == ("0000", "420000")
    for _ in range(3):
        story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 4)
    assert story.statuses() == [(0, "successful"), (1, "successful"), (2, "successful"), (3, "successful")]
    cards = [seen.body["request"]["credit_card"] for seen in story.account.charges]
    assert all("token" in card for card in cards[1:])


def test_a_free_trial_verifies_the_card_and_the_first_renewal_pays(story: Story) -> None:
    trial = {"amount": 0, "interval": 7, "interval_unit": "day"}
    subscription = story.subscribe(plan={**PLAN, "trial": trial})
    assert subscription["state"] == "trial"
    assert story.account.taken == []
    story.advance("8d")
    assert story.read(subscription)["state"] == "active"
    assert [amount for _, amount, _ in story.account.taken] == [999]


def test_a_declined_card_fails(story: Story) -> None:
    subscription = story.subscribe(stand_in.DECLINED[0])
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Payment was declined")
    assert story.account.taken == []


def test_a_declined_renewal_is_tried_again_and_succeeds(story: Story) -> None:
    subscription = story.subscribe()
    story.account.declines = True
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    story.account.declines = False
    story.advance("2d")
    assert story.read(subscription)["state"] == "active"
    assert story.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


def test_a_renewal_that_asks_for_3_d_secure_counts_as_declined_and_is_tried_again(story: Story) -> None:
    subscription = story.subscribe()
    story.account.challenges = True
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("failed_attempt", 1)
    assert "redirect_url" not in read["last_transaction"]
    story.account.challenges = False
    story.advance("2d")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert story.statuses() == [(0, "successful"), (1, "failed"), (1, "successful")]


def test_a_plan_of_tests_goes_to_the_sandbox(story: Story) -> None:
    subscription = story.subscribe(plan={**PLAN, "test": True})
    assert subscription["state"] == "active"
    assert story.account.seen == []
    assert [payment["gateway"] for payment in story.payments()] == ["sandbox"]


def test_a_refused_number_is_repeated_nowhere(story: Story) -> None:
    story.account.fail(stand_in.TALKATIVE)
    subscription = story.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["message"]) == ("failed", "Number … is invalid")
    story.subscribe(expect=422, card={**CARD, "exp_month": "13"}, number=None)
