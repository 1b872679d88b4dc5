"""Every 422 as problem details on request: each fault has a code, and its example corrects the request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecomcharge.base.faults import CODES
from support.builders import a_card, a_customer

FOLDER = Path(__file__).parents[2] / "data" / "requests"
PLAN = {"title": "Tea box", "currency": "EUR", "plan": {"amount": 1250, "interval": 1, "interval_unit": "month"}}
PROBLEM = {"accept": "application/json, application/problem+json"}
COMPLETE: dict[str, dict[str, Any]] = {
    "/customers": a_customer(),
    "/plans": PLAN,
    "/subscriptions": {"plan": PLAN, "customer": a_customer(), "card": a_card()},
}
MORE: list[tuple[str, dict[str, Any]]] = [
    ("/customers", {"email": None, "ip": ""}),
    ("/customers", {"country": "us", "state": " "}),
    ("/customers", {"country": "CA", "state": "CO", "metadata": {"a": ["x"], "b": "c"}}),
    ("/customers", {"metadata": "x", "external_id": 1.5, "first_name": "x" * 256}),
    ("/plans", {"title": None, "currency": "LVL", "plan": {"amount": 0, "interval": 99_999, "interval_unit": "minute"}}),
    ("/plans", {"plan": None, "language": "xx", "test": "maybe", "number_payment_attempts": "many"}),
    ("/plans", {"infinite": False, "billing_cycles": 1.5, "trial": {"amount": -1}}),
    ("/plans", {"plan": {**PLAN["plan"], "visible_fields": 7}}),  # type: ignore[dict-item]
    ("/subscriptions", {"plan": None}),
    ("/subscriptions", {"plan": {"title": "x"}, "customer": {"email": "x", "country": "US", "state": "ON", "zip": "1"}}),
    ("/subscriptions", {"customer": None, "card": {"number": "1", "verification_value": "x", "holder": "x" * 33}}),
    ("/subscriptions", {"card": {**a_card(), "exp_year": 1999, "exp_month": 13}}),
    ("/subscriptions", {"tracking_id": [], "device_id": {}, "return_url": "shop", "notification_url": "ftp://shop.test"}),
    ("/subscriptions", {"dynamic_billing_descriptor": "x" * 256, "receipt_text": ["x", "y" * 256, "z\0"]}),
    ("/subscriptions", {"additional_data": "x", "settings": 1, "receipt_text": ["x"] * 51}),
    ("/subscriptions", {"card": {"token": 1.5}}),
]


def refused_cases() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for kind in ("customers", "plans", "subscriptions"):
        cases = json.loads((FOLDER / f"refused_{kind}.json").read_text())
        found += [(f"/{kind}", {**case["send"]}) for case in cases]
    return [*found, *MORE]


def put(body: dict[str, Any], pointer: str, value: object) -> None:
    """Set the value at a JSON pointer; objects on the way are created."""
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    place: Any = body
    for name in names[:-1]:
        if isinstance(place, list):
            place = place[int(name)]
            continue
        if not isinstance(place.get(name), dict | list) or place[name] == []:
            place[name] = {}
        place = place[name]
    if isinstance(place, list):
        place[int(names[-1])] = value
    else:
        place[names[-1]] = value


@pytest.mark.parametrize(("path", "changed"), refused_cases())
def test_the_examples_of_all_faults_correct_the_request(http: httpx.Client, path: str, changed: dict[str, Any]) -> None:
    body = json.loads(json.dumps({**COMPLETE[path], **changed}))
    plain = http.post(path, json=body)
    answer = http.post(path, json=body, headers=PROBLEM)
    assert (plain.status_code, plain.headers["content-type"]) == (422, "application/json; charset=utf-8")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["detail"] == plain.json()["message"]
    assert problem["instance"] == answer.headers["x-request-id"]
    for _ in range(3):  # the example of a country makes a state necessary
        assert answer.json()["errors"]
        for fault in answer.json()["errors"]:
            assert fault["code"] in CODES
            assert fault["rule"]
            put(body, fault["pointer"], fault["example"])
        if "token" in (body.get("card") or {}):
            body["card"] = a_card()  # the example is a token of another shop
        answer = http.post(path, json=body, headers=PROBLEM)
        if answer.status_code == 201:
            break
    assert answer.status_code == 201, (problem, answer.text)


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/problem+json;q=0"])
def test_without_the_header_the_documented_form_is_unchanged(http: httpx.Client, accept: str | None) -> None:
    answer = http.post("/customers", json={"email": "mei@shop.test"}, headers={"accept": accept} if accept else {})
    assert answer.text == (
        '{"message":"Ip address is invalid. Ip can\'t be blank","errors":{"ip":["address is invalid","can\'t be blank"]}}'
    )


def test_errors_that_a_transaction_raises_are_problems_too(http: httpx.Client) -> None:
    made = http.post("/subscriptions", json={**COMPLETE["/subscriptions"], "card": a_card("4005550000000019")}).json()
    cases: list[tuple[str, str, Any, dict[str, str], list[tuple[str, str]]]] = [
        ("POST", "/subscriptions", {"plan": {"id": "pln_0000000000000000"}}, {}, [("/plan/id", "unknown_id")]),
        ("POST", "/subscriptions", {"plan": PLAN, "customer": {"id": "cst_1"}}, {}, [("/customer/id", "unknown_id")]),
        (
            *("POST", "/subscriptions", {"plan": PLAN, "customer": a_customer(), "card": {"token": "x"}}, {}),
            [("/card/token", "unknown_card_token")],
        ),
        ("DELETE", f"/subscriptions/{made['id']}", None, {}, [("", "subscription_over")]),
        ("POST", f"/subscriptions/{made['id']}/cancel", {}, {}, [("/cancel_reason", "required")]),
        ("POST", "/customers", [1], {}, [("", "not_an_object")]),
    ]
    for method, path, body, headers, found in cases:
        answer = http.request(method, path, json=body, headers={**PROBLEM, **headers})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
        assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == found


def test_a_reused_key_is_a_problem_without_fields(http: httpx.Client) -> None:
    headers = {**PROBLEM, "idempotency-key": "one"}
    assert http.post("/customers", json=a_customer(), headers=headers).status_code == 201
    answer = http.post("/customers", json=a_customer("other@shop.test"), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:ecomcharge:problem:idempotency_key_reused"
    assert answer.json()["errors"] == []


def test_other_statuses_keep_their_form(http: httpx.Client) -> None:
    for path, status in (("/customers/cst_0000000000000000", 404), ("/customers?limit=0", 400)):
        answer = http.get(path, headers=PROBLEM)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json; charset=utf-8")
        assert list(answer.json()) == ["message"]


@pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
def test_a_correction_that_is_refused_is_a_problem_too(http: httpx.Client, method: str) -> None:
    made = http.post("/customers", json=a_customer()).json()
    body = {**a_customer(), "country": "XX", "metadata": {"color": 1.5}}
    answer = http.request(method, f"/customers/{made['id']}", json=body, headers=PROBLEM)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [
        ("/country", "unknown_country"),
        ("/metadata/color", "not_a_string"),
    ]
    assert http.get(f"/customers/{made['id']}").json() == made
