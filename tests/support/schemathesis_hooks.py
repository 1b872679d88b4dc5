"""Hooks of schemathesis: they name objects that exist, and keep its requests within the rules that a schema cannot say."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import secrets
from collections.abc import MutableMapping
from typing import Any

import httpx
import schemathesis

from ecomcharge.runtime.api_description import describe_api
from ecomcharge.subscriptions import lifecycle
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT

IDEMPOTENCY_KEY = next(
    parameter["schema"]["pattern"]
    for parameter in describe_api()["paths"]["/customers"]["post"]["parameters"]
    if parameter["name"] == "RequestID"
)


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
