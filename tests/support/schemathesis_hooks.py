"""Hooks of schemathesis: they insert ids of existing objects and apply rules that a schema cannot express."""

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

from ecomcharge.base.card_numbers import has_card_number
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
    """Remove ``default`` responses, which allow every status. Some operations have one because linters require it."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("default", None)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Correct a request where a schema cannot: rules about two fields, and references to existing objects."""
    operation = case.operation.label
    if operation in ("POST /customers", "POST /plans", "POST /subscriptions", *CHANGES):
        _isolate_invalid_request_id(case.headers)
    if case.meta is None or case.meta.generation.mode.is_positive:
        case.query, case.path_parameters = dict(case.query), dict(case.path_parameters)  # the next case may share these objects
        if not isinstance(case.body, schemathesis.core.NotSet):
            case.body = copy.deepcopy(case.body)
            _write_integers_without_fraction(case.body)
        if operation in _ADJUSTMENTS:
            _ADJUSTMENTS[operation](case)
        if case.headers.get("Idempotency-Key") or case.headers.get("RequestID"):
            _use_one_key_per_body(case)
    elif operation in CHANGES:
        _change_no_erased_customer(case)
    elif operation == "POST /v2/checkout":
        _use_a_new_page(case)


PUT_EXTERNAL = "PUT /customers/external/{external_id}"
CHANGES = (*(f"{method} /customers/{{customer_id}}" for method in ("PATCH", "POST", "PUT")), PUT_EXTERNAL)
PRIVATE_URL = "http://127.0.0.1:9/"  # a private address, so that no webhook is sent to an unknown server
PLAN = {"title": "Fuzz", "currency": "EUR", "plan": {"amount": 100, "interval": 1, "interval_unit": "year"}, "test": True}
CARD = {"number": "4200000000000000", "exp_month": 12, "exp_year": 2199}
CHALLENGED = {**CARD, "number": "4012000000001097"}
FORM_TOKEN = re.compile(r"""form_token["']?\s+value=["']?([0-9a-f]+)""")


@functools.cache
def shop_client() -> httpx.Client:
    """The HTTP client of the schemathesis process."""
    credentials = (os.environ["SHOP_ID"], os.environ["SHOP_KEY"])
    return httpx.Client(base_url=os.environ["SHOP_URL"], auth=credentials, timeout=30)


def subscribed(**more: Any) -> dict[str, Any]:
    answer = shop_client().post("/subscriptions", json={"plan": PLAN, **more})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def new_customer_id() -> str:
    customer = {"email": "customer@example.com", "ip": "127.0.0.1"}
    return str(shop_client().post("/customers", json=customer).json()["id"])


@functools.cache
def known() -> dict[str, Any]:
    """A subscription whose plan, customer and card other requests refer to."""
    return subscribed(customer={"email": "customer@example.com"}, card=CARD)


def _use_existing_objects(case: schemathesis.Case[Any]) -> None:
    """Replace ids and tokens with those of existing objects."""
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
            body[name] = PRIVATE_URL


def _cancel_an_active_subscription(case: schemathesis.Case[Any]) -> None:
    """Replace a failed or expired subscription, which cannot be canceled."""
    answer = shop_client().get(f"/subscriptions/{case.path_parameters['subscription_id']}")
    if answer.status_code == 200 and answer.json()["state"] in lifecycle.OVER - {lifecycle.CANCELED}:
        case.path_parameters["subscription_id"] = subscribed()["id"]


def _use_existing_link(case: schemathesis.Case[Any]) -> None:
    case.path_parameters["plan_id"] = known()["plan"]["id"]
    if "shop_id" in case.path_parameters:
        case.path_parameters["shop_id"] = os.environ["SHOP_ID"]
    if "return_url" in case.query:
        case.query["return_url"] = PRIVATE_URL


def _open_a_waiting_page(case: schemathesis.Case[Any]) -> None:
    case.query["token"] = token = subscribed()["token"]
    if case.method == "POST":
        _fill_in_form_token(case, f"/v2/checkout?token={token}")
        _fill_in_card(case)


def _use_a_new_page(case: schemathesis.Case[Any]) -> None:
    """Replace the token of a used page, which redirects for any form. Schemathesis reuses tokens of earlier responses."""
    token = dict(case.query or {}).get("token")
    if isinstance(token, str) and re.fullmatch("[0-9a-f]{64}", token):
        case.query = {**case.query, "token": subscribed()["token"]}


def _open_a_challenge(case: schemathesis.Case[Any]) -> None:
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
    """Use a valid check digit and a future month, which no pattern can express, and a code, which only the page requires."""
    form: Any = case.body
    if not isinstance(form, schemathesis.core.NotSet):
        form |= {"number": CHALLENGED["number"], "verification_value": "123", "exp_month": "12", "exp_year": "2099"}


def _resume_the_clock(case: schemathesis.Case[Any]) -> None:
    """Resume the clock, because repeated moves of ten years reach its limit in 2109."""
    shop_client().post("/sandbox/clock/resume")


_body_of_key: dict[str, str] = {}


def _isolate_invalid_request_id(headers: MutableMapping[str, str]) -> None:
    """Remove the Idempotency-Key beside an invalid RequestID, because the server ignores RequestID if both are present."""
    if "Idempotency-Key" in headers and not re.search(IDEMPOTENCY_KEY, headers.get("RequestID", "x")):
        del headers["Idempotency-Key"]


def _use_one_key_per_body(case: schemathesis.Case[Any]) -> None:
    """Replace a key that an earlier request used with another body, or that has the form of a card number."""
    body = case.operation.label + json.dumps([case.body, case.path_parameters], sort_keys=True)
    for name in ("Idempotency-Key", "RequestID"):
        key = case.headers.get(name)
        if key is not None and (has_card_number(key) or _body_of_key.setdefault(key.strip('"'), body) != body):
            case.headers[name] = f"key-{secrets.token_hex(8)}"


def _write_integers_without_fraction(body: Any) -> None:
    """Write 1.0 as 1. Both are integers in JSON Schema, but for text fields the server accepts only numbers without a point."""
    entries: Any = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for place, value in entries:
        if isinstance(value, float) and value.is_integer():
            body[place] = int(value)
        _write_integers_without_fraction(value)


def _read_a_kept_customer(case: schemathesis.Case[Any]) -> None:
    """Replace an erased customer, which gets 410. Schemathesis reuses ids of earlier responses."""
    if shop_client().get(f"/customers/{case.path_parameters['customer_id']}").status_code == 410:
        case.path_parameters["customer_id"] = new_customer_id()


def _change_no_erased_customer(case: schemathesis.Case[Any]) -> None:
    """Replace an erased customer in an invalid request, because 410 is not a status that schemathesis accepts for one."""
    customer_id = str(case.path_parameters.get("customer_id"))
    if re.fullmatch("cst_[0-9a-f]{16}", customer_id) and shop_client().get(f"/customers/{customer_id}").status_code == 410:
        case.path_parameters = {**case.path_parameters, "customer_id": new_customer_id()}


def _change_a_new_customer(case: schemathesis.Case[Any]) -> None:
    """Replace the id by that of a customer with all required fields, and ``If-Match`` by one that its version meets."""
    case.path_parameters["customer_id"] = new_customer_id()
    if "If-Match" in case.headers:
        case.headers["If-Match"] = "*"


def _erase_any_version(case: schemathesis.Case[Any]) -> None:
    """Remove ``If-Match``, which names a version that the customer does not have."""
    case.headers.pop("If-Match", None)


def _use_the_external_id_of_the_path(case: schemathesis.Case[Any]) -> None:
    """Remove the external id of the body, which must be that of the path, and conditions that the customer may not meet."""
    case.headers.pop("If-Match", None)
    case.headers.pop("If-None-Match", None)
    if isinstance(case.body, dict):
        case.body.pop("external_id", None)


def _use_one_kind_of_paging(case: schemathesis.Case[Any]) -> None:
    """Use either a cursor or a page number, within the maximum offset."""
    query = case.query
    by_cursor = [name for name in ("after", "before", "limit") if name in query]
    by_number = [name for name in ("page", "per_page") if name in query]
    for name in by_number if by_cursor else ():
        del query[name]
    if "after" in query and "before" in query:
        del query["before"]
    if "page" in query and (int(query["page"]) - 1) * int(query.get("per_page", DEFAULT_LIMIT)) > DEEPEST_OFFSET:
        del query["page"]


_ADJUSTMENTS = {
    "POST /subscriptions": _use_existing_objects,
    **dict.fromkeys(("GET /customers", "GET /plans", "GET /subscriptions"), _use_one_kind_of_paging),
    "POST /subscriptions/{subscription_id}/cancel": _cancel_an_active_subscription,
    "DELETE /subscriptions/{subscription_id}": _cancel_an_active_subscription,
    **{
        f"{method} {path}": _use_existing_link
        for method in ("GET", "POST")
        for path in ("/plans/{plan_id}/pay", "/v2/confirm_order/{plan_id}/{shop_id}")
    },
    **dict.fromkeys(("GET /v2/checkout", "POST /v2/checkout"), _open_a_waiting_page),
    **dict.fromkeys(("GET /process/{payment_id}", "POST /process/{payment_id}"), _open_a_challenge),
    **dict.fromkeys(("GET /customers/{customer_id}", "GET /customers/{customer_id}/export"), _read_a_kept_customer),
    **dict.fromkeys(CHANGES, _change_a_new_customer),
    "DELETE /customers/{customer_id}": _erase_any_version,
    PUT_EXTERNAL: _use_the_external_id_of_the_path,
    "POST /sandbox/clock/advance": _resume_the_clock,
}
