"""A 422 as problem details: which requests get it, and what it contains."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecomcharge.base import errors, faults, validation
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.faults import CODES, Fault
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.customers.model import CustomerBody, validate
from ecomcharge.plans.model import misplaced_test
from ecomcharge.subscriptions import requests
from ecomcharge.subscriptions.requests import SubscriptionBody
from ecomcharge.web.error_responses import STATUS_OF
from ecomcharge.web.problems import STATUS, TITLES, problem_of, problem_response, wants_problem

TEXTS = [  # every text of the validation of fields
    *(validation.BLANK, validation.INVALID, validation.INVALID_IP, validation.NOT_A_STRING, validation.TOO_LONG),
    *(validation.NOT_A_NUMBER, validation.NOT_AN_INTEGER, validation.TOO_SMALL, validation.TOO_LARGE, validation.NOT_A_BOOLEAN),
    *(validation.NOT_AN_OBJECT, validation.NOT_AN_ARRAY, validation.NOT_STRINGS, validation.TOO_MANY),
]


def problem_of_customer(**fields: Any) -> dict[str, Any]:
    with pytest.raises(errors.ValidationFailed) as raised:
        validate(CustomerBody(**fields))
    problem: dict[str, Any] = json.loads(problem_response(raised.value, "req_1").body)
    return problem


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("application/*", False),
        ("application/problem+json", True),
        ("Application/Problem+JSON", True),
        ("application/json, application/problem+json;q=0.9", True),
        ("application/problem+json; charset=utf-8, */*", True),
        ("application/problem+json;q=0", False),
        ("application/problem+json;q=0.000, */*", False),
        ("application/problem+xml", False),
    ],
)
def test_a_problem_is_wanted_if_the_header_contains_its_media_type(accept: str | None, wanted: bool) -> None:
    assert wants_problem(accept) is wanted


def test_every_error_of_this_status_has_a_title() -> None:
    assert TITLES.keys() == {kind for kind, status in STATUS_OF.items() if status == STATUS}


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_has_a_code(text: str) -> None:
    code = Fault(("x",), text).code
    assert code in CODES
    assert (code == faults.INVALID_FORMAT) == (text in (validation.INVALID, validation.INVALID_IP))


def test_every_fault_of_every_field_is_listed() -> None:
    problem = problem_of_customer(country="XX", city="x" * 256, zip=1.5, phone=[], email="jane", metadata={"a/b~": 7.5})
    assert list(problem) == ["type", "title", "status", "detail", "instance", "errors"]
    assert (problem["type"], problem["status"], problem["instance"]) == ("urn:ecomcharge:problem:invalid", 422, "req_1")
    assert problem["detail"].startswith("Country is invalid. City is too long (maximum is 255 characters). Zip must be")
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [
        ("/country", "unknown_country"),
        ("/city", "too_long"),
        ("/zip", "not_a_string"),
        ("/phone", "not_a_string"),
        ("/email", "invalid_format"),
        ("/ip", "required"),
        ("/metadata/a~1b~0", "not_a_string"),
    ]
    assert all(error["rule"] and error["example"] for error in problem["errors"])


def test_a_fault_has_the_rule_and_an_example() -> None:
    [fault] = problem_of_customer(email="jane@shop.test", ip="203.0.113")["errors"]
    assert fault == {
        "pointer": "/ip",
        "code": "invalid_format",
        "detail": "address is invalid",
        "rule": "IPv4 or IPv6 address of the customer's device, stored in canonical form.",
        "example": "127.0.0.1",
    }


def test_a_fault_of_a_new_plan_in_a_subscription_points_to_the_field() -> None:
    with pytest.raises(errors.ValidationFailed) as raised:
        requests.validate(SubscriptionBody(plan={"title": "T", "currency": "LVL", "plan": {"amount": "x", "interval": 0}}))
    problem = problem_of(raised.value, "req_1")
    assert [(error["pointer"], error["code"], error["detail"]) for error in problem["errors"]] == [
        ("/plan/currency", "unknown_currency", "Currency is invalid"),
        ("/plan/plan/amount", "not_a_number", "Amount is not a number"),
        ("/plan/plan/interval", "too_small", "Interval must be greater than 0"),
        ("/plan/plan/interval_unit", "required", "Interval unit can't be blank"),
    ]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (errors.NotAnObject(), [("", "not_an_object")]),
        (errors.IdempotencyKeyReused(), []),
        (requests.unknown_plan(), [("/plan/id", "unknown_id")]),
        (requests.unknown_customer(), [("/customer/id", "unknown_id")]),
        (requests.unknown_card_token(), [("/card/token", "unknown_card_token")]),
        (requests.is_over(), [("", "subscription_over")]),
        (misplaced_test("plan.test"), [("/plan/test", "misplaced")]),
        (errors.ValidationFailed("Id is invalid", {"id": ["is invalid"]}), [("/id", "invalid_format")]),
        (
            errors.ValidationFailed("no", {"base": ["no"], "a": {"base": ["b"]}}),
            [("", "invalid_format"), ("/a", "invalid_format")],
        ),
    ],
)
def test_other_errors_of_this_status(error: EcomchargeError, found: list[tuple[str, str]]) -> None:
    problem = problem_of(error, "req_1")
    assert problem["type"] == f"urn:ecomcharge:problem:{error.code}"
    assert problem["detail"] == error.message
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == found
    assert all(fault["code"] in CODES for fault in problem["errors"])


def test_repeated_texts_of_one_field_appear_once_and_every_place_is_listed() -> None:
    found = ValidationErrors()
    for number in range(3):
        found.add_fault("lines", Fault(("lines", str(number)), "is invalid"))
    assert found.to_dict() == {"lines": ["is invalid"]}
    assert [fault.pointer for fault in found.faults()] == ["/lines/0", "/lines/1", "/lines/2"]
