"""Requests as shops really send them: what has one obvious meaning is understood, the rest is refused with a clear message.

The cases are files of ``tests/data/requests``, each with the right result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.builders import a_card, a_customer, a_plan

FOLDER = Path(__file__).parents[2] / "data" / "requests"
PLAN = {"title": "Tea box", "currency": "EUR", "plan": {"amount": 1250, "interval": 1, "interval_unit": "month"}}
GENERATED = {"id", "created_at", "updated_at", "pay_url", "payment_url", "confirm_url"}


def cases(name: str) -> pytest.MarkDecorator:
    """Parametrize a test with the cases of a file."""
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return pytest.mark.parametrize("case", found, ids=[case["name"] for case in found])


def parts_of(answer: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: answer[name] for name in names}


@cases("customers")
def test_a_customer_is_understood(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/customers", json={**a_customer(), **case["send"]})
    assert answer.status_code == 201, answer.text
    wanted = {name: value for name, value in case["stored"].items() if value is not None}
    assert {name: answer.json().get(name) for name in wanted} == wanted
    assert http.get(answer.headers["location"]).json() == answer.json()


@cases("refused_customers")
def test_a_customer_without_one_obvious_meaning_is_refused(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/customers", json={**a_customer(), **case["send"]})
    assert (answer.status_code, answer.json()["errors"]) == (422, case["errors"])
    assert http.get("/customers").json() == []


@cases("customers")
def test_a_customer_of_a_subscription_is_understood_too(http: httpx.Client, case: dict[str, Any]) -> None:
    details = {name: value for name, value in {**a_customer(), **case["send"]}.items() if name != "id"}
    answer = http.post("/subscriptions", json={"plan": PLAN, "customer": details})
    assert answer.status_code == 201, answer.text
    stored = http.get(f"/customers/{answer.json()['customer']['id']}").json()
    wanted = {name: value for name, value in case["stored"].items() if value is not None}
    assert {name: stored.get(name) for name in wanted} == wanted


@cases("plans")
def test_a_plan_is_understood(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/plans", json={**PLAN, **case["send"]})
    assert answer.status_code == 201, answer.text
    assert parts_of(answer.json(), case["shown"]) == case["shown"]
    assert http.get(answer.headers["location"]).json() == answer.json()


@cases("refused_plans")
def test_a_plan_without_one_obvious_meaning_is_refused(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/plans", json={**PLAN, **case["send"]})
    assert (answer.status_code, answer.json()["errors"]) == (422, case["errors"])


@pytest.mark.parametrize("fields", [{}, {"infinite": False, "billing_cycles": 12, "test": True}, {"trial": "with"}])
def test_a_plan_that_was_read_can_be_created_again(http: httpx.Client, fields: dict[str, Any]) -> None:
    if "trial" in fields:
        fields = {"trial": {"amount": 0, "interval": 7, "interval_unit": "day", "as_first_payment": True}}
    read = http.get(http.post("/plans", json=a_plan(**fields)).headers["location"]).json()
    answer = http.post("/plans", json=read)
    assert answer.status_code == 201, answer.text
    assert "x-ignored-keys" not in answer.headers
    assert answer.json()["id"] != read["id"]
    assert parts_of(answer.json(), read.keys() - GENERATED) == parts_of(read, read.keys() - GENERATED)


def test_a_customer_that_was_read_can_be_created_again(http: httpx.Client) -> None:
    read = http.post("/customers", json=a_customer(country="XK", address="a\nb")).json()
    answer = http.post("/customers", json=read)
    assert answer.status_code == 201, answer.text
    assert {**answer.json(), "id": read["id"]} == read


@cases("subscriptions")
def test_a_subscription_is_understood(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/subscriptions", json={"plan": PLAN, **case["send"]})
    assert answer.status_code == 201, answer.text
    assert parts_of(answer.json(), case["shown"]) == case["shown"]
    assert http.get(answer.headers["location"]).json() == answer.json()


@cases("refused_subscriptions")
def test_a_subscription_without_one_obvious_meaning_is_refused(http: httpx.Client, case: dict[str, Any]) -> None:
    answer = http.post("/subscriptions", json={"plan": PLAN, **case["send"]})
    assert (answer.status_code, answer.json()["errors"]) == (422, case["errors"])
    assert http.get("/subscriptions").json() == []


@cases("malformed_bodies")
@pytest.mark.parametrize("path", ["/customers", "/plans", "/subscriptions"])
def test_a_malformed_body_is_explained(http: httpx.Client, path: str, case: dict[str, Any]) -> None:
    body = case["text"].encode(case.get("encoding", "utf-8"))
    answer = http.post(path, content=body, headers={"content-type": case.get("content_type", "application/json")})
    assert (answer.status_code, answer.json()) == (400, {"message": case["message"]})


def test_a_byte_order_mark_before_the_body_is_ignored(http: httpx.Client) -> None:
    def post(path: str, body: object, mark: bytes = b"\xef\xbb\xbf") -> httpx.Response:
        headers = {"content-type": "application/json", "idempotency-key": f"one{path}"}
        return http.post(path, content=mark + json.dumps(body, ensure_ascii=False).encode(), headers=headers)

    for path, body in (("/customers", a_customer(city="Nīca")), ("/plans", PLAN), ("/subscriptions", {"plan": PLAN})):
        answer = post(path, body)
        assert answer.status_code == 201, answer.text
        assert post(path, body, b"").text == answer.text  # the same request without the mark


def test_an_empty_array_as_the_whole_body_is_an_empty_object(http: httpx.Client) -> None:
    made = http.post("/subscriptions", json={"plan": PLAN}).json()
    for path in ("/customers", "/plans", "/subscriptions", f"/subscriptions/{made['id']}/cancel"):
        answers = [
            http.post(path, content=body, headers={"content-type": "application/json"}) for body in ("{}", "[]", " [\n]\t")
        ]
        assert {answer.status_code for answer in answers} == {422}
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].json()["errors"]
    assert http.post("/customers", json=[1]).json() == {"message": "Body must be a JSON object"}


def test_two_slashes_in_a_path_are_one(http: httpx.Client, server: Any) -> None:
    made = httpx.post(f"{server.url}//customers", json=a_customer(), auth=http.auth)
    assert made.status_code == 201
    read = httpx.get(f"{server.url}//customers//{made.json()['id']}/", auth=http.auth)
    assert read.json() == made.json()
    http.post("/customers", json=a_customer())
    page = httpx.get(f"{server.url}//customers?limit=1", auth=http.auth)
    assert page.json() == [made.json()]
    assert page.links["next"]["url"].startswith("/customers?limit=1&after=")
    subscription = http.post("/subscriptions", json={"plan": PLAN}).json()
    canceled = httpx.post(
        f"{server.url}/subscriptions//{subscription['id']}//cancel", json={"cancel_reason": "enough"}, auth=http.auth
    )
    assert canceled.json()["state"] == "canceled"
    confirmed = httpx.get(f"{server.url}//v2//confirm_order//{subscription['plan']['id']}//{server.shop_id}")
    assert (confirmed.status_code, confirmed.content) == (302, b"")


def test_a_plus_in_an_address_of_e_mail_is_a_plus(http: httpx.Client) -> None:
    made = http.post("/customers", json=a_customer("mei+tea@shop.test")).json()
    http.post("/customers", json=a_customer("mei@shop.test"))
    for written in ("mei+tea@shop.test", "mei%2Btea@shop.test", "mei+tea%40shop.test"):
        assert http.get(f"/customers?email={written}").json() == [made]
        assert http.get(f"/customers?email%5B%5D={written}").json() == [made]
    http.post("/customers", json=a_customer("mei+tea@shop.test"))
    page = http.get("/customers?email=mei+tea@shop.test&limit=1")
    assert page.json() == [made]
    assert len(http.get(page.links["next"]["url"]).json()) == 1


def test_a_plus_in_the_return_url_of_a_pay_link_is_a_plus(http: httpx.Client) -> None:
    plan = http.post("/plans", json=PLAN).json()
    assert httpx.get(f"{plan['pay_url']}?return_url=https://shop.example/tea+box").status_code == 302


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("/customers?phone=1", "Customers cannot be filtered by phone; the filters are email, external_id"),
        ("/customers?first_name=", "Customers cannot be filtered by first_name; the filters are email, external_id"),
        ("/customers?limit=5&ip[]=::1", "Customers cannot be filtered by ip[]; the filters are email, external_id"),
        ("/customers?email[]=a&email[]=b", "Customers can be filtered by one value of email only"),
        ("/customers?email=a&email=b", "Customers can be filtered by one value of email only"),
        ("/customers?email%5Bx%5D=a", "Customers cannot be filtered by email[x]; the filters are email, external_id"),
        ("/plans?title=Tea", "Plans cannot be filtered by title"),
        ("/subscriptions?state[]=active&state[]=trial", "Subscriptions can be filtered by one value of state only"),
        (
            "/subscriptions?device_id=7",
            "Subscriptions cannot be filtered by device_id; the filters are state, customer, plan, tracking_id",
        ),
        ("/events?object_id=cst_0000000000000000", "Events cannot be filtered by object_id; the filters are object, type"),
    ],
)
def test_a_filter_that_a_list_does_not_have_is_refused(http: httpx.Client, query: str, message: str) -> None:
    answer = http.get(query)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)


def test_an_array_of_one_value_filters_a_list(http: httpx.Client) -> None:
    made = [http.post("/subscriptions", json={"plan": PLAN, "tracking_id": name}).json()["id"] for name in ("a", "b")]
    http.delete(f"/subscriptions/{made[0]}")
    for query in ("state[]=canceled", "state%5B%5D=canceled", "state[0]=canceled", "state[]=canceled&state[]=canceled"):
        assert [each["id"] for each in http.get(f"/subscriptions?{query}").json()] == made[:1]
    assert [each["id"] for each in http.get("/subscriptions?tracking_id[]=b").json()] == made[1:]


def test_parameters_that_are_no_field_are_ignored(http: httpx.Client) -> None:
    made = http.post("/customers", json=a_customer()).json()
    assert http.get("/customers?shop_id=1&api_version=2&sort[]=asc&fields[customer]=id&=").json() == [made]
    for path in ("/plans", "/subscriptions", "/events"):
        assert http.get(f"{path}?shop_id=1&auth_data=x").status_code == 200


def test_a_declined_card_uses_the_idempotency_key(http: httpx.Client) -> None:
    def subscribe(number: str) -> httpx.Response:
        body = {"plan": PLAN, "customer": a_customer(), "card": a_card(number)}
        return http.post("/subscriptions", json=body, headers={"Idempotency-Key": "order-42"})

    assert subscribe("4005550000000019").json()["state"] == "failed"
    again = subscribe("4200000000000000")
    assert (again.status_code, again.json()["message"]) == (
        422,
        "Idempotency key was already used with a different request",
    )
