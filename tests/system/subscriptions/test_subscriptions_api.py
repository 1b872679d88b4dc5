"""Plans and subscriptions over HTTP agree with the documentation and the captured traffic."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from ecomcharge.gateways.sandbox import TEST_CARDS
from support.builders import a_card, a_plan, a_price
from support.shops import Shop

PRICE: dict[str, Any] = a_price(999)
PLAN: dict[str, Any] = a_plan(plan=PRICE)
CARD = a_card(verification_value="123", holder="John Doe", exp_month="01", exp_year="2099")
JANE = {"first_name": "Jane", "email": "jane@shop.test"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")

PUBLISHED = {
    "successful": ["4200000000000000", "4012000000001006", "4012000000001055", "5204240000015003", "5204240000015011"],
    "challenge": ["4012000000001097", "5204240000015029"],
    "failed": [
        *("4005550000000019", "4012000000001022", "4012000000001030", "4012000000001014"),
        *("5204240000015045", "5204240000015052", "5204240000015060"),
    ],
}


@pytest.fixture
def plan(http: httpx.Client) -> dict[str, Any]:
    return dict(http.post("/plans", json=PLAN).json())


def subscribe(http: httpx.Client, plan: dict[str, Any], **chosen: Any) -> dict[str, Any]:
    wanted = {"plan": {"id": plan["id"]}, "customer": JANE, "card": CARD, **chosen}
    answer = http.post("/subscriptions", json={name: value for name, value in wanted.items() if value is not None})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


# Plans


def test_the_fields_of_a_plan_are_in_the_documented_order(http: httpx.Client, server: Shop) -> None:
    trial = a_price(499)
    answer = http.post("/plans", json={**PLAN, "trial": trial})
    assert answer.status_code == 201
    plan = answer.json()
    assert list(plan) == [
        *("id", "title", "name", "description", "amount", "currency", "language", "infinite", "billing_cycles", "created_at"),
        *("updated_at", "trial", "plan", "number_payment_attempts", "prevent_payments_at_night", "test", "pay_url"),
        *("payment_url", "confirm_url"),
    ]
    assert re.match(r"pln_[0-9a-f]{16}\Z", plan["id"])
    assert plan["description"] == "Subscription. Main period: €9.99 each 1 month. Trial: €4.99 each 1 month."
    assert (plan["amount"], plan["name"], plan["language"], plan["infinite"]) == (499, "Basic", "en", True)
    assert plan["trial"] == {**trial, "as_first_payment": False}
    assert (plan["number_payment_attempts"], plan["prevent_payments_at_night"], plan["test"]) == (3, False, False)
    assert MOMENT.match(plan["created_at"])
    assert plan["pay_url"] == plan["payment_url"]
    assert plan["pay_url"].endswith(f"/plans/{plan['id']}/pay")
    assert plan["confirm_url"].endswith(f"/v2/confirm_order/{plan['id']}/{server.shop_id}")
    assert answer.headers["location"] == f"/plans/{plan['id']}"
    assert http.get(answer.headers["location"]).json() == plan
    assert http.get("/plans").json() == [plan]


def test_a_plan_without_a_trial_has_an_empty_trial_object(plan: dict[str, Any]) -> None:
    assert plan["trial"] == {"amount": None, "interval": None, "interval_unit": "hour"}
    assert plan["description"] == "Subscription. Main period: €9.99 each 1 month."
    assert plan["amount"] == 999


def test_numbers_as_text_are_accepted_and_unknown_fields_are_ignored(http: httpx.Client) -> None:
    body = {
        "title": "x",
        "currency": "JPY",
        "shop_id": 361,
        "description": "mine",
        "infinite": "false",
        "billing_cycles": "3",
        "plan": {"amount": 100.0, "interval": "2", "interval_unit": "week", "visible_fields": ["email"]},
    }
    answer = http.post("/plans", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["plan"] == {"amount": 100, "interval": 2, "interval_unit": "week", "visible_fields": ["email"]}
    assert answer.json()["description"] == "Subscription. Main period: ¥100 each 2 week."
    assert answer.json()["billing_cycles"] == 3


@pytest.mark.parametrize(
    ("changed", "errors", "message"),
    [
        ({"title": None}, {"title": ["can't be blank"]}, "Title can't be blank"),
        ({"currency": "LVL"}, {"currency": ["is invalid"]}, "Currency is invalid"),
        ({"currency": "XAU"}, {"currency": ["is invalid"]}, "Currency is invalid"),
        (
            {"plan": {**PRICE, "amount": 0}},
            {"plan": {"amount": ["must be greater than 0"]}},
            "Amount must be greater than 0",
        ),
        ({"plan": {**PRICE, "amount": 1.5}}, {"plan": {"amount": ["must be an integer"]}}, "Amount must be an integer"),
        ({"plan": {**PRICE, "amount": "x"}}, {"plan": {"amount": ["is not a number"]}}, "Amount is not a number"),
        (
            {"plan": {**PRICE, "interval_unit": "moon"}},
            {"plan": {"interval_unit": ["is invalid"]}},
            "Interval unit is invalid",
        ),
        (
            {"plan": {**PRICE, "interval": 121}},
            {"plan": {"interval": ["must be less than or equal to 120"]}},
            "Interval must be less than or equal to 120",
        ),
        ({"plan": "x"}, {"plan": ["must be an object"]}, "Plan must be an object"),
        (
            {"trial": {"amount": 0, "interval": 1}},
            {"trial": {"interval_unit": ["can't be blank"]}},
            "Interval unit can't be blank",
        ),
        ({"language": "tlh"}, {"language": ["is invalid"]}, "Language is invalid"),
        ({"infinite": False}, {"billing_cycles": ["can't be blank"]}, "Billing cycles can't be blank"),
        ({"infinite": "perhaps"}, {"infinite": ["must be true or false"]}, "Infinite must be true or false"),
    ],
)
def test_an_invalid_plan_is_refused(http: httpx.Client, changed: dict[str, Any], errors: Any, message: str) -> None:
    answer = http.post("/plans", json={**PLAN, **changed})
    assert (answer.status_code, answer.text) == (
        422,
        json.dumps({"errors": errors, "message": message}, separators=(",", ":"), ensure_ascii=False),
    )
    assert http.get("/plans").json() == []


def test_all_errors_of_a_plan_are_returned_at_once(http: httpx.Client) -> None:
    answer = http.post("/plans", json={"plan": {"interval": 1}})
    assert answer.json() == {
        "errors": {
            "title": ["can't be blank"],
            "currency": ["can't be blank"],
            "plan": {"amount": ["can't be blank"], "interval_unit": ["can't be blank"]},
        },
        "message": "Title can't be blank. Currency can't be blank. Amount can't be blank. Interval unit can't be blank",
    }


# Subscriptions


def test_a_subscription_with_a_card_is_active_at_once(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan, tracking_id=42, device_id="d", additional_data={"any": ["thing", 1]})
    assert list(made) == [
        *("id", "state", "tracking_id", "device_id", "created_at", "renew_at", "active_to", "card", "customer"),
        *("paid_billing_cycles", "number_failed_payment_attempts", "additional_data", "plan", "last_transaction"),
    ]
    assert list(made["card"]) == [
        *("holder", "stamp", "brand", "last_4", "first_1", "bin", "issuer_country", "issuer_name", "product", "token"),
        *("token_provider", "exp_month", "exp_year", "sub_brand"),
    ]
    assert re.match(r"sbs_[0-9a-f]{16}\Z", made["id"])
    assert (made["state"], made["tracking_id"], made["device_id"]) == ("active", "42", "d")
    assert made["renew_at"] == made["active_to"]
    assert MOMENT.match(made["renew_at"])
    assert (made["paid_billing_cycles"], made["number_failed_payment_attempts"]) == (1, 0)
    assert made["additional_data"] == {"any": ["thing", 1]}
    assert made["plan"] == plan
    card = made["card"]
    assert (card["holder"], card["brand"], card["first_1"], card["last_4"], card["bin"]) == (
        "John Doe",
        "visa",
        "4",
        "0000",
        "420000",
    )
    assert (card["exp_month"], card["exp_year"]) == (1, 2099)
    assert UUID.match(card["token"])
    assert re.match(r"[0-9a-f]{64}\Z", card["stamp"])
    last = made["last_transaction"]
    assert list(last) == ["uid", "status", "message", "created_at"]
    assert (last["status"], last["message"]) == ("successful", "Successfully processed")
    assert UUID.match(last["uid"])
    assert http.get(f"/subscriptions/{made['id']}").json() == made
    assert http.get("/subscriptions").json() == [made]


def test_a_subscription_creates_its_customer(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan, customer={"first_name": "Jane", "country": "us", "phone": 37529})
    customer = http.get(f"/customers/{made['customer']['id']}").json()
    assert (customer["first_name"], customer["country"], customer["phone"]) == ("Jane", "US", "37529")
    assert (customer["email"], customer["ip"], customer["state"]) == (None, None, None)
    assert [each["id"] for each in http.get("/customers").json()] == [customer["id"]]
    assert [each["id"] for each in http.get(f"/subscriptions?customer={customer['id']}").json()] == [made["id"]]


def test_a_refused_subscription_creates_neither_customer_nor_plan(http: httpx.Client, plan: dict[str, Any]) -> None:
    for wanted in (
        {"plan": {"id": plan["id"]}, "customer": {"email": "nonsense"}, "card": CARD},
        {"plan": {**PLAN, "currency": "LVL"}, "customer": JANE, "card": CARD},
        {"plan": {"id": "pln_0000000000000000"}, "customer": JANE, "card": CARD},
        {"plan": {"id": plan["id"]}, "customer": JANE, "card": {"token": "unknown"}},
    ):
        assert http.post("/subscriptions", json=wanted).status_code == 422
    assert http.get("/customers").json() == []
    assert http.get("/plans").json() == [plan]
    assert http.get("/subscriptions").json() == []


def test_a_subscription_creates_a_plan_given_in_full(http: httpx.Client) -> None:
    answer = http.post("/subscriptions", json={"plan": PLAN})
    assert answer.status_code == 201
    assert http.get("/plans").json() == [answer.json()["plan"]]


def test_without_a_card_the_buyer_is_sent_to_a_page(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan, card=None, customer=None)
    assert list(made)[-2:] == ["redirect_url", "token"]
    assert (made["state"], made["card"], made["customer"], made["last_transaction"]) == ("redirecting", {}, {}, None)
    assert re.match(r"[0-9a-f]{64}\Z", made["token"])
    assert made["redirect_url"].endswith(f"/v2/checkout?token={made['token']}")
    page = httpx.get(made["redirect_url"])
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("number", PUBLISHED["successful"])
def test_a_published_test_card_succeeds(http: httpx.Client, plan: dict[str, Any], number: str) -> None:
    assert subscribe(http, plan, card={**CARD, "number": number})["state"] == "active"


@pytest.mark.parametrize("number", PUBLISHED["failed"])
def test_a_published_test_card_fails(http: httpx.Client, plan: dict[str, Any], number: str) -> None:
    made = subscribe(http, plan, card={**CARD, "number": number})
    assert (made["state"], made["renew_at"], made["active_to"]) == ("failed", None, None)
    assert (made["paid_billing_cycles"], made["number_failed_payment_attempts"]) == (0, 0)
    assert (made["last_transaction"]["status"], made["last_transaction"]["message"]) == ("failed", "Payment was declined")


@pytest.mark.parametrize("number", PUBLISHED["challenge"])
@pytest.mark.parametrize(("answer", "state"), [("accept", "active"), ("refuse", "failed")])
def test_a_published_test_card_requires_3d_secure(
    http: httpx.Client, plan: dict[str, Any], number: str, answer: str, state: str
) -> None:
    made = subscribe(http, plan, card={**CARD, "number": number}, return_url="https://shop.example/back?a=1&b=2#c")
    assert (made["state"], made["last_transaction"]["status"]) == ("redirecting", "incomplete")
    assert made["redirect_url"] == made["last_transaction"]["redirect_url"]
    assert made["redirect_url"].endswith(f"/process/{made['last_transaction']['uid']}")
    assert "token" not in made
    with httpx.Client() as browser:
        page = browser.get(made["redirect_url"])
        [token] = re.findall(r"name=[\"']?form_token[\"']? value=[\"']?([0-9a-f]+)", page.text)
        back = browser.post(made["redirect_url"], data={"form_token": token, "answer": answer})
        assert (back.status_code, back.headers["location"]) == (303, f"https://shop.example/back?a=1&b=2&id={made['id']}#c")
        again = browser.post(made["redirect_url"], data={"form_token": token, "answer": "accept"})
        assert again.headers["location"] == back.headers["location"]
    after = http.get(f"/subscriptions/{made['id']}").json()
    assert (after["state"], after["paid_billing_cycles"]) == (state, 1 if state == "active" else 0)


def test_the_published_test_cards_match_the_program() -> None:
    for behaviour, numbers in PUBLISHED.items():
        assert all(TEST_CARDS[number] == behaviour for number in numbers)
    assert all(number.startswith("411111") for number in set(TEST_CARDS) - {n for each in PUBLISHED.values() for n in each})


def test_a_card_is_charged_again_by_its_token(http: httpx.Client, plan: dict[str, Any]) -> None:
    first = subscribe(http, plan)
    second = subscribe(http, plan, card={"token": first["card"]["token"]})
    assert (second["state"], second["card"]) == ("active", first["card"])


def test_the_stamp_of_a_card_depends_on_its_number(http: httpx.Client, plan: dict[str, Any]) -> None:
    stamps = [subscribe(http, plan, card={**CARD, "number": number})["card"]["stamp"] for number in PUBLISHED["successful"][:2]]
    assert len(set(stamps)) == 2
    assert subscribe(http, plan)["card"]["stamp"] == stamps[0]


@pytest.mark.parametrize(
    ("changed", "errors", "message"),
    [
        ({"plan": None}, {"plan": ["can't be blank"]}, "Plan can't be blank"),
        (
            {"plan": {"id": "pln_0000000000000000"}},
            {"plan": {"base": ["plan with this ID doesn't exist for this account"]}},
            "plan with this ID doesn't exist for this account",
        ),
        (
            {"customer": {"id": "cst_0000000000000000"}},
            {"customer": {"base": ["customer with this ID doesn't exist for this account"]}},
            "customer with this ID doesn't exist for this account",
        ),
        (
            {"card": {"token": "5b9b4a49-2f0a-4a4c-8c33-000000000000"}},
            {"card": {"base": ["card with this token doesn't exist for this account"]}},
            "card with this token doesn't exist for this account",
        ),
        ({"plan": {**PLAN, "currency": "LVL"}}, {"base": ["Currency is invalid"]}, "Currency is invalid"),
        ({"customer": None}, {"customer": ["can't be blank"]}, "Customer can't be blank"),
        ({"customer": {"email": "x"}}, {"customer": {"email": ["is invalid"]}}, "Email is invalid"),
        ({"card": {**CARD, "number": "1234"}}, {"card": {"number": ["is invalid"]}}, "Number is invalid"),
        ({"card": {**CARD, "exp_month": 13}}, {"card": {"exp_month": ["must be less than or equal to 12"]}}, None),
        ({"card": {**CARD, "verification_value": "12"}}, {"card": {"verification_value": ["is invalid"]}}, None),
        ({"card": {**CARD, "holder": "x" * 33}}, {"card": {"holder": ["is too long (maximum is 32 characters)"]}}, None),
        ({"tracking_id": "x" * 256}, {"tracking_id": ["is too long (maximum is 255 characters)"]}, None),
        ({"return_url": "javascript:alert(1)"}, {"return_url": ["is invalid"]}, "Return url is invalid"),
        ({"notification_url": "ftp://x"}, {"notification_url": ["is invalid"]}, "Notification url is invalid"),
        ({"additional_data": [1]}, {"additional_data": ["must be an object"]}, None),
        ({"receipt_text": "x"}, {"receipt_text": ["must be an array"]}, None),
    ],
)
def test_an_invalid_subscription_is_refused(
    http: httpx.Client, plan: dict[str, Any], changed: dict[str, Any], errors: Any, message: str | None
) -> None:
    answer = http.post("/subscriptions", json={"plan": {"id": plan["id"]}, "customer": JANE, "card": CARD, **changed})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == errors
    assert list(answer.json()) == ["errors", "message"]
    assert message is None or answer.json()["message"] == message


def test_unknown_and_misplaced_keys_are_ignored(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan, shop_id=1, test=True, auth_data={"x": 1}, plan_id="x", settings={"style": {}, "auto_return": 5})
    assert made["state"] == "active"


def test_canceling_keeps_the_paid_period_and_is_idempotent(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan)
    path = f"/subscriptions/{made['id']}"
    missing = http.post(f"{path}/cancel", json={})
    assert (missing.status_code, missing.json()["message"]) == (422, "Cancel reason can't be blank")
    response = http.post(f"{path}/cancel", json={"cancel_reason": "enough"})
    assert response.status_code == 200
    canceled = response.json()
    assert list(canceled)[11:15] == ["additional_data", "cancel_reason", "cancelled_at", "plan"]
    assert (canceled["state"], canceled["cancel_reason"], canceled["renew_at"]) == ("canceled", "enough", None)
    assert canceled["active_to"] == made["active_to"]
    assert MOMENT.match(canceled["cancelled_at"])
    assert http.post(f"{path}/cancel", json={"cancel_reason": "again"}).json() == canceled
    assert http.delete(path).json() == canceled


def test_delete_cancels_without_a_reason(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan)
    response = http.delete(f"/subscriptions/{made['id']}")
    assert (response.status_code, response.json()["state"], response.json()["cancel_reason"]) == (200, "canceled", None)


def test_a_failed_subscription_cannot_be_canceled(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan, card={**CARD, "number": PUBLISHED["failed"][0]})
    refused = http.delete(f"/subscriptions/{made['id']}")
    assert (refused.status_code, refused.json()["message"]) == (422, "Subscription is over and can't be canceled")


def test_objects_of_another_shop_are_not_found(http: httpx.Client, new_shop: Any) -> None:
    plan = http.post("/plans", json=PLAN).json()
    made = subscribe(http, plan)
    other: Shop = new_shop()
    with other.client() as stranger:
        for path in (f"/plans/{plan['id']}", f"/subscriptions/{made['id']}"):
            assert stranger.get(path).json() == {"message": "Record not found"}
        assert stranger.delete(f"/subscriptions/{made['id']}").status_code == 404
        own = stranger.post("/plans", json=PLAN).json()
        for wanted in (
            {"plan": {"id": plan["id"]}},
            {"plan": {"id": own["id"]}, "customer": {"id": made["customer"]["id"]}},
            {"plan": {"id": own["id"]}, "customer": JANE, "card": {"token": made["card"]["token"]}},
        ):
            assert stranger.post("/subscriptions", json=wanted).status_code == 422
        assert stranger.get("/events").json() == []
        assert stranger.get(f"/events?object={made['id']}").json() == []


def test_lists_are_filtered_and_paged(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = [subscribe(http, plan, card=None, tracking_id=f"order-{number % 2}") for number in range(5)]
    http.delete(f"/subscriptions/{made[0]['id']}")
    ids = [each["id"] for each in made]

    def listed(query: str) -> list[str]:
        return [each["id"] for each in http.get(f"/subscriptions?{query}").json()]

    assert listed("") == ids
    assert listed("state=canceled") == ids[:1]
    assert listed("tracking_id=order-1") == [ids[1], ids[3]]
    assert listed(f"plan={plan['id']}&state=redirecting") == ids[1:]
    assert listed(f"customer={made[2]['customer']['id']}") == [ids[2]]
    assert listed("plan=unknown") == listed("state=%00") == []
    first = http.get("/subscriptions?limit=2&state=redirecting")
    assert [each["id"] for each in first.json()] == ids[1:3]
    assert first.links["next"]["url"] == f"/subscriptions?state=redirecting&limit=2&after={ids[2]}"
    assert [each["id"] for each in http.get(first.links["next"]["url"]).json()] == ids[3:]
    assert [each["id"] for each in http.get("/plans?page=1&per_page=1").json()] == [plan["id"]]


def test_the_same_key_charges_once(http: httpx.Client, plan: dict[str, Any]) -> None:
    wanted = {"plan": {"id": plan["id"]}, "customer": JANE, "card": CARD}
    answers = [http.post("/subscriptions", json=wanted, headers={"RequestID": "order-42"}) for _ in range(3)]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    other = http.post("/subscriptions", json={**wanted, "tracking_id": "x"}, headers={"RequestID": "order-42"})
    assert (other.status_code, other.json()["message"]) == (422, "Idempotency key was already used with a different request")
    assert len(http.get("/subscriptions").json()) == len(http.get("/customers").json()) == 1


def test_events_are_listed_newest_first(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan)
    http.delete(f"/subscriptions/{made['id']}")
    events = http.get("/events").json()
    assert [(each["type"], each["sequence"]) for each in events] == [
        ("canceled.subscription", 2),
        ("created.subscription", 1),
        ("customer.created", 1),
    ]
    assert list(events[0]) == ["id", "type", "object_id", "sequence", "created_at", "data"]
    assert events[1]["data"] == {**made, "event": "created.subscription"}
    assert list(events[1]["data"])[-1] == "event"
    assert events[2]["data"] == http.get(f"/customers/{made['customer']['id']}").json()
    assert http.get(f"/events?object={made['id']}").json() == events[:2]
    assert http.get(f"/events?object={made['customer']['id']}").json() == events[2:]
    assert http.get("/events?type=customer.created").json() == events[2:]
    page = http.get("/events?limit=1")
    assert page.json() == events[:1]
    assert http.get(page.links["next"]["url"]).json() == events[1:2]
    assert http.get("/events?before=nonsense").status_code == 400


def test_events_can_be_listed_oldest_first(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = subscribe(http, plan)
    http.delete(f"/subscriptions/{made['id']}")
    events = http.get("/events").json()
    assert http.get("/events?order=asc").json() == events[::-1]
    page = http.get("/events?order=asc&limit=1&count=true")
    assert page.json() == events[2:]
    assert page.headers["x-total-count"] == "3"
    page = http.get(page.links["next"]["url"])
    assert page.json() == events[1:2]
    assert page.headers["x-total-count"] == "3"
    assert http.get(f"/events?after={events[2]['id']}").json() == events[:2]
    assert http.get(f"/events?after={events[2]['id']}&before={events[0]['id']}").json() == events[1:2]
    assert http.get(f"/events?created_from={events[0]['created_at']}&object={made['id']}").json()[:1] == events[:1]
    assert http.get(f"/events?created_to={events[2]['created_at']}").json() == []
    assert http.get(f"/events?object={made['id']}&count=true").headers["x-total-count"] == "2"
    assert http.get("/events?type=customer.created&count=true").headers["x-total-count"] == "1"
    for query in ("order=x", "after=x", "count=x", "created_from=x"):
        assert http.get(f"/events?{query}").status_code == 400


def test_plans_and_subscriptions_can_be_listed_newest_first_and_counted(http: httpx.Client, plan: dict[str, Any]) -> None:
    made = [subscribe(http, plan, card=None)["id"] for _ in range(3)]
    page = http.get("/subscriptions?order=desc&limit=2&count=true&state=redirecting")
    assert [each["id"] for each in page.json()] == made[:0:-1]
    assert page.headers["x-total-count"] == "3"
    assert [each["id"] for each in http.get(page.links["next"]["url"]).json()] == made[:1]
    assert http.get("/subscriptions?created_to=2020-01-01").json() == []
    plans = http.get("/plans?order=desc&count=true")
    assert (plans.json()[-1]["id"], plans.headers["x-total-count"]) == (plan["id"], str(len(plans.json())))
    assert http.get("/plans?created_to=2020-01-01&count=true").headers["x-total-count"] == "0"


def test_each_visit_to_a_pay_link_leads_to_a_payment_page(http: httpx.Client, server: Shop, plan: dict[str, Any]) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{plan['pay_url']}?return_url=https://shop.example/back")
        assert (answer.status_code, answer.content) == (302, b"")
        assert httpx.get(answer.headers["location"]).status_code == 200
    confirmed = httpx.get(plan["confirm_url"])
    assert (confirmed.status_code, confirmed.content) == (302, b"")
    assert [each["state"] for each in http.get("/subscriptions").json()] == ["redirecting"]  # GET creates nothing
    assert httpx.get(f"{server.url}/plans/pln_0000000000000000/pay").status_code == 404
    assert httpx.get(f"{server.url}/v2/confirm_order/{plan['id']}/1").status_code == 404
    assert httpx.get(f"{plan['pay_url']}?return_url=javascript:alert(1)").status_code == 400


def test_there_is_no_clock_outside_sandbox_mode(http: httpx.Client) -> None:
    for path in ("/sandbox/clock", "/sandbox/clock/advance"):
        assert http.post(path, json={"step": "1d"}).status_code == 404
