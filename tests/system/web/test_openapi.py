"""The API's description says what the server does, no more and no less.

schemathesis loads this file too, for its hooks.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import os
import re
import secrets
import subprocess
import sysconfig
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import httpx
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
from ecomcharge.shops.keys import MasterKey
from ecomcharge.subscriptions import lifecycle, requests
from ecomcharge.subscriptions.requests import SubscriptionBody
from ecomcharge.web.error_responses import STATUS_OF
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT
from ecomcharge.web.openapi import ERRORS
from ecomcharge.web.router import Route
from support import api_examples
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop

MAX_EXAMPLES = 10  # of each operation, besides those that the coverage of its schema gives; a time would depend on the machine
CLOCK = "/sandbox/clock"
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
IDEMPOTENCY_KEY = next(
    parameter["schema"]["pattern"]
    for parameter in describe_api()["paths"]["/customers"]["post"]["parameters"]
    if parameter["name"] == "RequestID"
)
LEAST = {"email": "customer@example.com", "ip": "127.0.0.1"}


def test_served_without_credentials_and_as_built(server: Shop) -> None:
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json() == describe_api(server.url)


def test_document_is_valid_openapi_3_1() -> None:
    loaded = schemathesis.openapi.from_dict(describe_api())
    loaded.validate()
    assert loaded.specification.name == "Open API 3.1.0"
    for name in describe_api()["components"]["schemas"]:
        jsonschema_rs.meta.validate(resolved(name))


def test_every_route_is_described_and_every_description_has_a_route(tmp_path: Path) -> None:
    served = {(route.method.lower(), route.path): route.needs_shop for route in registered_routes(tmp_path)}
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


def test_every_error_of_the_program_is_in_the_describe_api() -> None:
    defined = {kind for kind in subclasses(EcomchargeError) if kind.__module__ == "ecomcharge.base.errors"} - {EcomchargeError}
    defined.remove(ShopClosed)  # to a client it is Unauthorized
    assert defined == set(STATUS_OF)


def test_documented_examples_are_the_documentations_own() -> None:
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
    body = {**LEAST, **difference}
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
def test_examples_are_the_answers_of_the_code(path: Path) -> None:
    assert path.read_text("utf-8") == api_examples.text_of(api_examples.FILES[path]), "run `python -m support.api_examples`"


def test_without_the_sandbox_there_is_no_clock(http: httpx.Client) -> None:
    for path, methods in describe_api()["paths"].items():
        if path.startswith(CLOCK):
            [method] = methods
            answer = http.request(method, path, json={})
            assert (answer.status_code, answer.json()) == (404, {"message": "Route not found"})


@pytest.mark.parametrize(
    "path", ["/process/%00", "/v2/checkout?token=%00", "/plans/%00/pay", "/v2/confirm_order/%00/1", "/plans/%00"]
)
def test_no_path_is_too_strange_for_an_answer(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_schemathesis_finds_nothing_against_a_running_server(server: Shop, tmp_path: Path) -> None:
    own = "/openapi.json"  # which it reads and does not try
    described = sum(len(methods) for path, methods in describe_api()["paths"].items() if not path.startswith((CLOCK, own)))
    schemathesis_finds_nothing(server, tmp_path, described, "--exclude-path-regex", f"^{CLOCK}")


def test_schemathesis_finds_nothing_at_the_clock(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """On a server of its own: the clock is the whole server's."""
    with ServerProcess(new_database_url(), tmp_path, "--sandbox", environment=ENVIRONMENT) as process:
        credentials = add_shop(process.database, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        phases = ("--phases", "examples,coverage,fuzzing")  # nothing there leads from one to another
        schemathesis_finds_nothing(shop, tmp_path, 6, "--include-path-regex", f"^{CLOCK}", *phases)


def schemathesis_finds_nothing(shop: Shop, folder: Path, operations: int, *options: str) -> None:
    """Every check, every phase unless ``options`` say otherwise. Its output names the seed."""
    command = [
        str(Path(sysconfig.get_path("scripts"), "schemathesis")),
        *("run", f"{shop.url}/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        # The only DELETE cancels a subscription, and a canceled one stays readable: its history is money.
        *("--exclude-checks", "use_after_free"),
        *("--max-examples", str(MAX_EXAMPLES)),
        "--suppress-health-check=filter_too_much,too_slow",  # of the drawing of examples, not of the program
        *("--continue-on-failure", "--no-color", "--generation-database", "none"),
        *("--auth", f"{shop.shop_id}:{shop.secret_key}", "--output-sanitize", "false", "--output-truncate", "false"),
        # Credentials are the command's business: it would "leave out" a header that --auth then adds again.
        *("--generation-with-security-parameters", "false"),
        *options,
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": Path(__file__).stem,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
        "SHOP_URL": shop.url,
        "SHOP_ID": str(shop.shop_id),
        "SHOP_KEY": shop.secret_key,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout)  # pytest shows it when the test fails
    assert done.returncode == 0, f"schemathesis: {seed_of(done.stdout)}\n{done.stderr}"
    assert re.search(rf"API Operations:\n +Selected: {operations}/\d+\n +Tested: {operations}\n", done.stdout), done.stdout


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """A ``default`` answer, which some operations have for the sake of linters, would allow every status."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("default", None)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Take out of a request what a schema has no words for: what is about two things at once, and what must be there before."""
    operation = case.operation.label
    if operation in ("POST /customers", "POST /plans", "POST /subscriptions"):
        _let_request_id_count(case.headers)
    if case.meta is None or case.meta.generation.mode.is_positive:
        case.query, case.path_parameters = dict(case.query), dict(case.path_parameters)  # they may be the next case's, too
        if not isinstance(case.body, schemathesis.core.NotSet):
            case.body = copy.deepcopy(case.body)
            _write_whole_numbers_whole(case.body)
        if operation in _FITTING:
            _FITTING[operation](case)
        if case.headers.get("Idempotency-Key") or case.headers.get("RequestID"):
            _use_no_key_twice(case)
    elif operation == "POST /v2/checkout":
        _leave_a_page_that_waits_no_more(case)


NOBODY = "http://127.0.0.1:9/"  # a private address, where webhooks do not go: fuzzing must not write to strangers
PLAN = {"title": "Fuzz", "currency": "EUR", "plan": {"amount": 100, "interval": 1, "interval_unit": "year"}, "test": True}
CARD = {"number": "4200000000000000", "exp_month": 12, "exp_year": 2199}
CHALLENGED = {**CARD, "number": "4012000000001097"}
FORM_TOKEN = re.compile(r"""form_token["']?\s+value=["']?([0-9a-f]+)""")


@functools.cache
def shop_client() -> httpx.Client:
    """Of schemathesis' own process."""
    credentials = (os.environ["SHOP_ID"], os.environ["SHOP_KEY"])
    return httpx.Client(base_url=os.environ["SHOP_URL"], auth=credentials, timeout=30)


def subscribed(**more: Any) -> dict[str, Any]:
    answer = shop_client().post("/subscriptions", json={"plan": PLAN, **more})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


@functools.cache
def known() -> dict[str, Any]:
    """A subscription, whose plan, customer and card others may name."""
    return subscribed(customer={"email": "customer@example.com"}, card=CARD)


def _name_what_there_is(case: schemathesis.Case[Any]) -> None:
    """An id or a token of the right form is not yet one that the shop has."""
    body: Any = case.body
    for name, key, there in (
        ("plan", "id", known()["plan"]["id"]),
        ("customer", "id", known()["customer"]["id"]),
        ("card", "token", known()["card"]["token"]),
    ):
        if isinstance(body.get(name), dict) and body[name].get(key):
            body[name][key] = there
    for name in ("return_url", "notification_url"):
        if body.get(name):
            body[name] = NOBODY


def _cancel_what_is_not_over(case: schemathesis.Case[Any]) -> None:
    """What failed or expired cannot be canceled."""
    answer = shop_client().get(f"/subscriptions/{case.path_parameters['subscription_id']}")
    if answer.status_code == 200 and answer.json()["state"] in lifecycle.OVER - {lifecycle.CANCELED}:
        case.path_parameters["subscription_id"] = subscribed()["id"]


def _follow_a_link(case: schemathesis.Case[Any]) -> None:
    case.path_parameters["plan_id"] = known()["plan"]["id"]
    if "shop_id" in case.path_parameters:
        case.path_parameters["shop_id"] = os.environ["SHOP_ID"]
    if "return_url" in case.query:
        case.query["return_url"] = NOBODY


def _come_to_a_page_that_waits(case: schemathesis.Case[Any]) -> None:
    case.query["token"] = token = subscribed()["token"]
    if case.method == "POST":
        _fill_in_form_token(case, f"/v2/checkout?token={token}")
        _fill_in_card(case)


def _leave_a_page_that_waits_no_more(case: schemathesis.Case[Any]) -> None:
    """It leads elsewhere whatever the form says, and tokens that an earlier answer told are tried again."""
    token = dict(case.query or {}).get("token")
    if isinstance(token, str) and re.fullmatch("[0-9a-f]{64}", token):
        case.query = {**case.query, "token": subscribed()["token"]}


def _come_to_a_challenge(case: schemathesis.Case[Any]) -> None:
    waiting = subscribed(customer={"email": "customer@example.com"}, card=CHALLENGED)
    case.path_parameters["payment_id"] = waiting["last_transaction"]["uid"]
    if case.method == "POST":
        _fill_in_form_token(case, waiting["redirect_url"])


def _fill_in_form_token(case: schemathesis.Case[Any], page: str) -> None:
    form: Any = case.body
    if isinstance(form, schemathesis.core.NotSet):
        return
    form["form_token"] = FORM_TOKEN.findall(shop_client().get(page).text)[0]


def _fill_in_card(case: schemathesis.Case[Any]) -> None:
    """Whether a check digit is right and a month is to come, no pattern can say; a code is wanted here and not by the API."""
    form: Any = case.body
    if not isinstance(form, schemathesis.core.NotSet):
        form |= {"number": CHALLENGED["number"], "verification_value": "123", "exp_month": "12", "exp_year": "2099"}


def _let_time_be(case: schemathesis.Case[Any]) -> None:
    """Ten years after ten years it comes to 2109, and there it ends."""
    shop_client().post("/sandbox/clock/resume")


_body_of_key: dict[str, str] = {}


def _let_request_id_count(headers: MutableMapping[str, str]) -> None:
    """Next to an Idempotency-Key nobody reads a RequestID, so a wrong one is only told of when it stands alone."""
    if "Idempotency-Key" in headers and not re.search(IDEMPOTENCY_KEY, headers.get("RequestID", "x")):
        del headers["Idempotency-Key"]


def _use_no_key_twice(case: schemathesis.Case[Any]) -> None:
    """A key belongs to the first body that it came with; a new body gets a new key."""
    body = case.operation.label + json.dumps(case.body, sort_keys=True)
    for name in ("Idempotency-Key", "RequestID"):
        key = case.headers.get(name)
        if key is not None and _body_of_key.setdefault(key.strip('"'), body) != body:
            case.headers[name] = secrets.token_hex(8)


def _write_whole_numbers_whole(body: Any) -> None:
    """To JSON Schema 1.0 is an integer like any other; where the server wants text it takes numbers without a point only."""
    entries: Any = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for place, value in entries:
        if isinstance(value, float) and value.is_integer():
            body[place] = int(value)
        _write_whole_numbers_whole(value)


def _tell_the_page_in_one_way(case: schemathesis.Case[Any]) -> None:
    """Either a cursor or a number, and not beyond the deepest page."""
    query = case.query
    by_cursor = [name for name in ("after", "before", "limit") if name in query]
    by_number = [name for name in ("page", "per_page") if name in query]
    for name in by_number if by_cursor else ():
        del query[name]
    if "after" in query and "before" in query:
        del query["before"]
    if "page" in query and (int(query["page"]) - 1) * int(query.get("per_page", DEFAULT_LIMIT)) > DEEPEST_OFFSET:
        del query["page"]


_FITTING = {
    "POST /subscriptions": _name_what_there_is,
    **dict.fromkeys(("GET /customers", "GET /plans", "GET /subscriptions"), _tell_the_page_in_one_way),
    "POST /subscriptions/{subscription_id}/cancel": _cancel_what_is_not_over,
    "DELETE /subscriptions/{subscription_id}": _cancel_what_is_not_over,
    **{
        f"{method} {path}": _follow_a_link
        for method in ("GET", "POST")
        for path in ("/plans/{plan_id}/pay", "/v2/confirm_order/{plan_id}/{shop_id}")
    },
    **dict.fromkeys(("GET /v2/checkout", "POST /v2/checkout"), _come_to_a_page_that_waits),
    **dict.fromkeys(("GET /process/{payment_id}", "POST /process/{payment_id}"), _come_to_a_challenge),
    "POST /sandbox/clock/advance": _let_time_be,
}


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
    """Status and answer, of every answer of 400 and above of every operation."""
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
    """A schema of the document that stands alone."""
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


def seed_of(output: str) -> str:
    found = re.search(r"Seed: \d+", output)
    return found.group() if found else "no seed"
