"""The API description agrees with the program."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis

from ecomcharge.base.errors import EcomchargeError, ShopClosed, ValidationFailed
from ecomcharge.base.settings import Settings
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.customers.model import CustomerBody, validate
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import PlanBody
from ecomcharge.plans.openapi import LEAST_PLAN, NEW_PLAN
from ecomcharge.runtime.api_description import describe_api
from ecomcharge.runtime.composition import App
from ecomcharge.subscriptions import requests
from ecomcharge.subscriptions.requests import SubscriptionBody
from ecomcharge.web.error_responses import STATUS_OF
from ecomcharge.web.openapi import ERRORS
from ecomcharge.web.router import Route
from support import api_examples

METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}
REQUEST_EXAMPLE = {
    "first_name": "John",
    "last_name": "Doe",
    "address": "1st Street",
    "country": "US",
    "city": "Denver",
    "zip": "92006",
    "state": "CO",
    "phone": "+1-555-555-5555",
    "email": "customer@example.com",
    "ip": "127.0.0.1",
}
ERROR_EXAMPLE = {
    "message": "Ip address is invalid. Ip can't be blank",
    "errors": {"ip": ["address is invalid", "can't be blank"]},
}
MINIMAL_CUSTOMER = {"email": "customer@example.com", "ip": "127.0.0.1"}


def test_document_is_valid_openapi_3_1() -> None:
    loaded = schemathesis.openapi.from_dict(describe_api())
    loaded.validate()
    assert loaded.specification.name == "Open API 3.1.0"
    for name in describe_api()["components"]["schemas"]:
        jsonschema_rs.meta.validate(resolved(name))


def test_every_route_is_described_and_every_description_has_a_route(tmp_path: Path) -> None:
    served = {(route.method.lower(), route.path.replace("{*}", "{}")): route.needs_shop for route in registered_routes(tmp_path)}
    described = {
        (method, re.sub(r"\{[^}]+\}", "{}", path)): operation.get("security", describe_api()["security"]) != []
        for path, methods in describe_api()["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    assert described == served


def test_every_error_is_described_with_its_status_and_headers() -> None:
    assert {type(error) for error in ERRORS.values()} == set(STATUS_OF)
    for error in ERRORS.values():
        found = [answer for status, answer in failures() if error.code in codes_of(answer) and status == STATUS_OF[type(error)]]
        assert found, f"{error.code} is on no operation"
    headers = {status: set(answer["headers"]) for status, answer in failures()}
    assert headers[401] == {"X-Request-Id", "WWW-Authenticate"}
    assert headers[405] == {"X-Request-Id", "Allow"}
    assert headers[429] == {"X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"}
    assert headers[503] == {"X-Request-Id", "Retry-After"}


def test_every_error_of_the_program_is_in_the_api_description() -> None:
    defined = {kind for kind in subclasses(EcomchargeError) if kind.__module__ == "ecomcharge.base.errors"} - {EcomchargeError}
    defined.remove(ShopClosed)  # clients receive it as Unauthorized
    assert defined == set(STATUS_OF)


def test_documented_examples_equal_those_of_the_documentation() -> None:
    examples = describe_api()["paths"]["/customers"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples["customer"]["value"] == REQUEST_EXAMPLE
    assert list(examples["customer"]["value"]) == list(REQUEST_EXAMPLE)
    assert describe_api()["components"]["examples"]["invalid"]["value"] == ERROR_EXAMPLE


@pytest.mark.parametrize(
    "difference",
    [
        {},
        {"country": None, "zip": "", "state": "  ", "phone": 15555555555, "unknown": [1]},
        {"country": " us ", "state": "co", "zip": 92006},
        {"country": "US", "state": "AE", "zip": " 92006-1234\n"},
        {"country": "us", "state": "co", "zip": 9200},
        {"country": "US"},
        {"country": "US", "state": None},
        {"country": "US", "state": "ON"},
        {"country": "US", "state": "CO", "zip": "9200"},
        {"country": "US", "state": "CO", "zip": ""},
        {"country": "CA"},
        {"country": "CA", "state": "on", "zip": "K1A 0B1"},
        {"country": "GB", "state": "any", "zip": "any"},
        {"country": "UK"},
        {"country": 1},
        {"country": ""},
        {"city": "\u3000" + "x" * 255 + "\t"},
        {"city": "x" * 256},
        {"city": "\U0001f600" * 255},
        {"city": "a\nb"},
        {"city": "a\t b\r\n\u2028c"},
        {"city": "a\n\x00b"},
        {"country": "XK"},
        {"country": "US", "state": "PW", "zip": "96940"},
        {"ip": "198.51.100.7, 10.0.0.1"},
        {"ip": "198.51.100.7:65535,x"},
        {"ip": "198.51.100.7:65536"},
        {"ip": "198.51.100.7:"},
        {"ip": "[2001:db8::7]:443 , 10.0.0.1"},
        {"ip": "[2001:db8::7%1]"},
        {"ip": "2001:db8::7, 10.0.0.1"},
        {"ip": "[1:2:3:4:5:6:7::]"},
        {"ip": "[1:2:3:4:5:6:7:8::]"},
        {"ip": "unknown, 198.51.100.7"},
        {"city": "\x00"},
        {"city": "a\x85b"},
        {"city": True},
        {"city": 1.5},
        {"city": ["x"]},
        {"email": None},
        {"email": "customer"},
        {"email": "j\u00fcrgen@b\u00fccher.example"},
        {"ip": "::ffff:1.2.3.4"},
        {"ip": "127.0.0.01"},
        {"ip": "fe80::1%eth0"},
        {"ip": ""},
        {"ip": 1},
    ],
)
def test_schema_and_server_agree_on_a_body(difference: dict[str, Any]) -> None:
    body = {**MINIMAL_CUSTOMER, **difference}
    assert accepted_by_schema(body) == accepted_by_code(body)


@pytest.mark.parametrize(
    "difference",
    [
        {},
        {"plan": None},
        {"plan": {}},
        {"plan": {"amount": 0, "interval": 1, "interval_unit": "day"}},
        {"plan": {"amount": 10**12 - 1, "interval": 120, "interval_unit": "month"}},
        {"plan": {"amount": 10**12, "interval": 1, "interval_unit": "month"}},
        {"plan": {"amount": 1, "interval": 121, "interval_unit": " month "}},
        {"plan": {"amount": "999999999999", "interval": "0120", "interval_unit": "month"}},
        {"plan": {"amount": "1000000000000", "interval": 1, "interval_unit": "day"}},
        {"plan": {"amount": 5.0, "interval": " 87600 ", "interval_unit": "hour"}},
        {"plan": {"amount": 5.5, "interval": 1, "interval_unit": "hour"}},
        {"plan": {"amount": 1, "interval": 11, "interval_unit": "year"}},
        {"plan": {"amount": 1, "interval": 1, "interval_unit": "minute"}},
        {"plan": {"amount": True, "interval": 1, "interval_unit": "day"}},
        {"plan": {"amount": 1, "interval": 1, "interval_unit": "day", "visible_fields": ["a", ""]}},
        {"plan": {"amount": 1, "interval": 1, "interval_unit": "day", "visible_fields": ""}},
        {"trial": ""},
        {"trial": {"as_first_payment": 7}},
        {"trial": {"amount": 0, "interval": 1, "interval_unit": "day"}},
        {"trial": {"amount": "0", "interval": 1, "interval_unit": "day", "as_first_payment": " TRUE "}},
        {"trial": {"amount": -1, "interval": 1, "interval_unit": "day"}},
        {"trial": {"amount": 1, "interval": None, "interval_unit": "day"}},
        {"trial": {"amount": ""}},
        {"title": 7},
        {"title": " "},
        {"title": None},
        {"currency": " EUR "},
        {"currency": "eur"},
        {"currency": "LVL"},
        {"language": "xx"},
        {"language": " "},
        {"infinite": False},
        {"infinite": "false", "billing_cycles": "10000"},
        {"infinite": False, "billing_cycles": 10_001},
        {"infinite": "no"},
        {"infinite": " ", "billing_cycles": "many"},
        {"billing_cycles": -1},
        {"number_payment_attempts": 100},
        {"number_payment_attempts": "101"},
        {"number_payment_attempts": " \t"},
        {"test": 1},
        {"test": "0"},
        {"test": 2},
        {"test": "yes"},
        {"infinite": 0},
        {"infinite": 0, "billing_cycles": 3},
        {"infinite": " 0 "},
        {"infinite": "1"},
        {"trial": []},
        {"trial": [1]},
        {"trial": {"amount": "", "interval": " ", "interval_unit": ""}},
        {"trial": {"amount": None, "interval": None, "interval_unit": "hour"}},
        {"trial": {"amount": None, "interval": None, "interval_unit": "day"}},
    ],
)
def test_schema_and_server_agree_on_a_plan(difference: dict[str, Any]) -> None:
    body = {**LEAST_PLAN, **difference}
    faults = ValidationErrors()
    plans.validate(msgspec.convert(body, PlanBody), faults)
    assert accepted_by_schema(body, "NewPlan") == (faults.to_dict() == {})


CARD_OF_BUYER = {"number": "4200 0000-0000 0000", "exp_month": "01", "exp_year": 30}
BUYER = {"email": "customer@example.com"}


@pytest.mark.parametrize(
    "difference",
    [
        {},
        {"plan": None},
        {"plan": {"id": ""}},
        {"plan": {**LEAST_PLAN, "id": None}},
        {"plan": {**LEAST_PLAN, "currency": "LVL"}},
        {"plan": NEW_PLAN},
        {"customer": ""},
        {"customer": []},
        {"customer": {}},
        {"customer": {"id": "cst_7aee5afb954c7ef7"}},
        {"customer": {"country": "US"}},
        {"customer": {"country": "US", "state": "ON"}},
        {"customer": {"country": "us", "zip": "1"}},
        {"customer": {"email": "jane"}},
        {"customer": {"email": "", "ip": None, "country": " "}},
        {"customer": {"ip": "1.2.3"}},
        {"card": {}},
        {"card": CARD_OF_BUYER},
        {"card": CARD_OF_BUYER, "customer": BUYER},
        {"card": CARD_OF_BUYER, "customer": {"email": ""}},
        {"card": CARD_OF_BUYER, "customer": {"note": 0}},
        {"card": {**CARD_OF_BUYER, "number": "1234567890"}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "number": 4200000000000000, "verification_value": 123}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "verification_value": "12"}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "holder": "x" * 33}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "holder": 10**32 - 1}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "exp_month": 13}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "exp_year": 1999}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "exp_year": "2199"}, "customer": BUYER},
        {"card": {**CARD_OF_BUYER, "exp_year": 100}, "customer": BUYER},
        {"card": {"token": "019b3d6e-7c00-7abc-8def-0123456789ab"}, "customer": BUYER},
        {"card": 1},
        {"return_url": " https://shop.example/a?b=c#d "},
        {"return_url": "shop.example"},
        {"return_url": "ftp://shop.example"},
        {"return_url": "https://shop.example/a b"},
        {"return_url": "HTTP://[::1]:8080/"},
        {"return_url": "myapp://paid?order=7"},
        {"return_url": " com.example.my-app://paid "},
        {"return_url": "myapp:paid"},
        {"return_url": "myapp:///paid"},
        {"return_url": "JavaScript://%0aalert(1)"},
        {"return_url": "ms-settings://about"},
        {"return_url": "Intent://scan/#Intent;end"},
        {"return_url": "intents://paid"},
        {"notification_url": "myapp://paid"},
        {"notification_url": "https:///path"},
        {"notification_url": 7},
        {"notification_url": ""},
        {"tracking_id": 42},
        {"tracking_id": True},
        {"device_id": "x" * 256},
        {"additional_data": ""},
        {"additional_data": []},
        {"settings": {"language": 7}},
        {"settings": "x"},
        {"language": {"any": "thing"}},
        {"receipt_text": ["a", 1]},
        {"receipt_text": ["a", "", "b\nc"]},
        {"receipt_text": ["x" * 256]},
        {"receipt_text": ["x"] * 50},
        {"receipt_text": ["x"] * 51},
        {"receipt_text": []},
        {"receipt_text": [[]]},
        {"card": []},
        {"card": [1]},
        {"additional_data": [1]},
        {"settings": []},
        {"customer": [1]},
        {"receipt_text": "a"},
        {"avs_cvc_verification": 7},
    ],
)
def test_schema_and_server_agree_on_a_subscription(difference: dict[str, Any]) -> None:
    body = {"plan": {"id": "pln_7aee5afb954c7ef8"}, **difference}
    try:
        requests.validate(msgspec.convert(body, SubscriptionBody))
        accepted = True
    except ValidationFailed:
        accepted = False
    assert accepted_by_schema(body, "NewSubscription") == accepted


def test_every_example_fits_its_schema() -> None:
    for name, schema in describe_api()["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            jsonschema_rs.Draft202012Validator(resolved(name), validate_formats=True).validate(example)
    for webhook in describe_api()["webhooks"].values():
        content = webhook["post"]["requestBody"]["content"]["application/json"]
        jsonschema_rs.validate({**content["schema"], "components": describe_api()["components"]}, content["example"])


@pytest.mark.parametrize("path", api_examples.FILES, ids=lambda path: path.parent.name)
def test_examples_equal_the_responses_of_the_code(path: Path) -> None:
    assert path.read_text("utf-8") == api_examples.text_of(api_examples.FILES[path]), "run `python -m support.api_examples`"


def registered_routes(folder: Path) -> list[Route]:
    async def start_and_look() -> list[Route]:
        app = App(Settings(database=f"sqlite:///{folder}/test.db", sandbox=True))
        await app.start()
        try:
            return [route for methods in app.dispatcher._router._methods.values() for route in methods.values()]
        finally:
            await app.stop()

    return asyncio.run(start_and_look())


def failures() -> list[tuple[int, dict[str, Any]]]:
    """Status and response of every error response of every operation."""
    operations = [operation for methods in describe_api()["paths"].values() for operation in methods.values()]
    answers = [
        (int(status), answer)
        for operation in operations
        for status, answer in operation["responses"].items()
        if status != "default"
    ]
    return [(status, answer) for status, answer in answers if status >= 400]


def codes_of(answer: dict[str, Any]) -> set[str]:
    return set(answer["content"].get("application/json", {}).get("examples", ()))


def subclasses(kind: type) -> set[type]:
    below: list[type] = type.__subclasses__(kind)
    return {kind}.union(*map(subclasses, below))


def resolved(name: str) -> dict[str, Any]:
    """A self-contained schema of the document."""
    described = describe_api()
    return {"$ref": f"#/components/schemas/{name}", "components": described["components"]}


def accepted_by_schema(body: dict[str, Any], name: str = "NewCustomer") -> bool:
    return jsonschema_rs.Draft202012Validator(resolved(name), validate_formats=True).is_valid(body)


def accepted_by_code(body: dict[str, Any]) -> bool:
    known = {name: value for name, value in body.items() if name in CustomerBody.__struct_fields__}
    try:
        validate(CustomerBody(**known))
    except ValidationFailed:
        return False
    return True
