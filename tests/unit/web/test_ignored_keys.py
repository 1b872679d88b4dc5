"""Known keys in the wrong place are found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecomcharge.customers.model import CustomerBody
from ecomcharge.plans.model import PlanBody
from ecomcharge.subscriptions.requests import SubscriptionBody
from ecomcharge.web import ignored_keys
from ecomcharge.web.ignored_keys import HEADER_MAXIMUM, KNOWN, PLAN, SUBSCRIPTION, misplaced_in
from support.ignored_keys import A_PLAN, CAPTURED, CARD, JANE, PRICE, TRUE


def names_in(body: dict[str, Any], level: ignored_keys.Level = SUBSCRIPTION) -> tuple[str, ...]:
    return misplaced_in(json.dumps(body).encode(), level).paths


def test_the_key_lists_match_the_request_bodies() -> None:
    assert set(SUBSCRIPTION.keys) == set(SubscriptionBody.__struct_fields__)
    assert {*PLAN.keys, "id"} == set(PlanBody.__struct_fields__)
    assert set(SUBSCRIPTION.inner["customer"].keys) == set(CustomerBody.__struct_fields__)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"plan": A_PLAN, "customer": JANE, "card": CARD, "settings": {"language": "en", "style": {}, "auto_return": 5}}, ()),
        ({"plan": {**A_PLAN, "trial": {**PRICE, "as_first_payment": True}, "test": True}}, ()),
        ({"test": True, "billing_cycles": 12, "number_payment_attempts": 10}, CAPTURED),
        (
            {"title": "x", "currency": "EUR", "infinite": False, "trial": {}, "prevent_payments_at_night": True},
            ("title", "currency", "trial", "infinite", "prevent_payments_at_night"),
        ),
        ({"amount": 1, "interval": 1, "email": "a@b.test", "number": "4"}, ("amount", "interval", "email", "number")),
        (
            {"plan": {**A_PLAN, "plan": {**PRICE, "test": True, "billing_cycles": 2}}},
            ("plan.plan.test", "plan.plan.billing_cycles"),
        ),
        ({"plan": {**A_PLAN, "trial": {**PRICE, "test": True}}}, ("plan.trial.test",)),
        ({"plan": {**A_PLAN, "interval": 1, "as_first_payment": True}}, ("plan.interval", "plan.as_first_payment")),
        ({"plan": {**A_PLAN, "tracking_id": "x", "return_url": "x"}}, ("plan.tracking_id", "plan.return_url")),
        ({"customer": {**JANE, "card": CARD, "language": "en"}}, ("customer.language", "customer.card")),
        ({"card": {**CARD, "email": "a@b.test"}}, ("card.email",)),
        ({"settings": {"notification_url": "x", "return_url": "x"}}, ("settings.return_url", "settings.notification_url")),
        ({"plan": {"id": "pln_1", "test": True, "number_payment_attempts": 9}}, ("plan.test", "plan.number_payment_attempts")),
        ({"customer": {"id": "cst_1", **JANE}}, ()),
        ({"plan": {**A_PLAN, "amount": 4900}}, ()),  # as in the response for a plan
        ({"plan": {**A_PLAN, "amount": 1}}, ("plan.amount",)),
        ({"shop_id": 1, "unknown": 1, "plan": {**A_PLAN, "description": "x", "name": "x", "shop_id": 1}}, ()),
        ({"additional_data": {"test": True, "email": "x"}, "receipt_text": ["test"]}, ()),
        ({"plan": [], "customer": "x", "card": None, "settings": [{"test": True}]}, ()),
    ],
)
def test_known_keys_in_the_wrong_place_are_found(body: dict[str, Any], names: Any) -> None:
    expected = ("test", "billing_cycles", "number_payment_attempts") if names is CAPTURED else names
    assert set(names_in(body)) == set(expected)
    assert len(names_in(body)) == len(expected)


def test_known_keys_in_the_wrong_place_of_a_plan_are_found() -> None:
    plan = {
        **A_PLAN,
        "plan": {**PRICE, "test": True},
        "card": CARD,
        "notification_url": "x",
        "shop_id": 1,
        "id": "x",
        "amount": 4900,
    }
    assert set(names_in(plan, PLAN)) == {"plan.test", "card", "notification_url"}


@pytest.mark.parametrize("value", TRUE)
def test_a_true_test_is_recognised(value: object) -> None:
    assert misplaced_in(json.dumps({"test": value}).encode(), SUBSCRIPTION).asks_for_test


@pytest.mark.parametrize("value", [False, "false", 0, "0", "", None, 2, [True], {"test": True}])
def test_a_test_value_other_than_true_is_not_recognised(value: object) -> None:
    assert not misplaced_in(json.dumps({"test": value}).encode(), SUBSCRIPTION).asks_for_test


def test_the_header_is_bounded_and_contains_only_listed_keys() -> None:
    everything = dict.fromkeys(KNOWN, 1)
    inner = {key: {**everything, "a\r\nset-cookie": 1, "plan": everything, "trial": everything} for key in KNOWN}
    misplaced = misplaced_in(json.dumps({**inner, "\r\nx: y": 1}).encode(), SUBSCRIPTION)
    [(name, value)] = misplaced.headers
    assert name == "x-ignored-keys"
    assert len(value) <= HEADER_MAXIMUM
    assert value.endswith(", ...")
    assert {part for path in value.split(", ")[:-1] for part in path.split(".")} <= set(KNOWN)
