"""The buyer's pages and the links to them, described. No credentials: whoever has the link may pay."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from ecomcharge.base import errors
from ecomcharge.checkout import rendering
from ecomcharge.checkout.forms import ASKED_FIRST, CARD_NAMES, FORM
from ecomcharge.customers import model as customers
from ecomcharge.subscriptions import requests
from ecomcharge.web.openapi import customers as customers_told
from ecomcharge.web.openapi import parts
from ecomcharge.web.openapi.parts import AROUND, Json, ref

_HTML: Final[Json] = {"text/html": {"schema": {"type": "string"}}}
_ASKED: Final = tuple(field for field in customers.FIELDS if field not in (customers.IP, customers.EXTERNAL_ID))
_FORM_TOKEN: Final = {"type": "string", "description": "As it stands in the page."}
_UNAVAILABLE: Final = "No gateway is configured that may charge it. Nothing was charged."
_CLOSED: Final = "The shop is closed. A page in the buyer's language says so, and nothing is charged."
_TWICE: Final = (("get", ""), ("post", "ByPost"))


def paths() -> Json:
    link = "Start a subscription to a plan by its link"
    return {
        "/plans/{plan_id}/pay": {method: _link(f"payPlan{name}", link, [_plan_id()]) for method, name in _TWICE},
        "/v2/confirm_order/{plan_id}/{shop_id}": {
            method: _link(f"confirmOrder{name}", f"{link}, with the shop's id", [_plan_id(), _shop_id()])
            for method, name in _TWICE
        },
        "/v2/checkout": {"get": _page(), "post": _pay()},
        "/v2/checkout/{file}": {"get": _file()},
        "/process/{payment_id}": {"get": _challenge(), "post": _answer_challenge()},
    }


def _plan_id() -> Json:
    return parts.path_parameter("plan_id", ref("schemas", "PlanId"))


def _shop_id() -> Json:
    return parts.path_parameter("shop_id", {"type": "integer", "minimum": 1})


def _payment_id() -> Json:
    return parts.path_parameter("payment_id", {"type": "string", "pattern": parts.UUID})


def _token() -> Json:
    schema = {"type": "string", "pattern": parts.TOKEN}
    return {**parts.query("token", "The `token` of a subscription that is `redirecting`.", schema), "required": True}


def _link(operation_id: str, summary: str, place: list[Json]) -> Json:
    return {
        "operationId": operation_id,
        "tags": ["checkout"],
        "summary": summary,
        "description": "For a buyer's browser. Every visit starts a new subscription.",
        "security": [],
        "parameters": [
            *place,
            parts.query("return_url", requests.RETURN_URL.description, parts.web_address(requests.RETURN_URL)),
            parts.request_id_header(),
        ],
        "responses": {
            "302": parts.answer("To the hosted page. The body is empty.", {}, headers=("Location",)),
            "409": parts.answer("Conflict: No gateway is configured for the shop. A page says so.", dict(_HTML)),
            "410": parts.answer(f"{HTTPStatus.GONE.phrase}: {_CLOSED}", dict(_HTML)),
            **parts.failures(*parts.OF_AN_ID, *parts.OF_A_WRITE, *parts.FOR_BUYERS),
        },
    }


def _page() -> Json:
    return _browsers(
        "checkoutPage",
        "The hosted page",
        [_token()],
        {200: "The form, or how it went.", 404: "No subscription has this token.", 409: _UNAVAILABLE},
        "To the 3-D Secure step that is under way.",
    )


def _pay() -> Json:
    pages = {
        403: "The form again: its token was missing or old. Nothing was charged.",
        404: "No subscription has this token.",
        409: _UNAVAILABLE,
        422: "The form again, and what is wrong with it. Nothing was charged.",
    }
    described = _browsers(
        "checkoutPay", "Pay on the hosted page", [_token()], pages, "To the 3-D Secure step, or back to the page."
    )
    described["requestBody"] = _form(
        {name: _typed(name) for name in CARD_NAMES}
        | {field.name: parts.told(field) | {"type": "string"} for field in _ASKED}
        | {customers.EMAIL.name: customers_told.email()}
        | {"form_token": _FORM_TOKEN},
        required=("number", "verification_value", "exp_month", "exp_year", "form_token", *ASKED_FIRST),
    )
    return _posted(described)


def _challenge() -> Json:
    return _browsers(
        "challengePage",
        "The 3-D Secure step",
        [_payment_id()],
        {200: "The sandbox's own step, or how it went.", 404: "There is no such payment."},
        "Back to the hosted page, or to the merchant.",
    )


def _answer_challenge() -> Json:
    described = _browsers(
        "challengeAnswer",
        "Pass the sandbox's 3-D Secure step, or refuse",
        [_payment_id()],
        {200: "How it went.", 404: "There is no such payment."},
        "Back to the hosted page, or to the merchant; without a good form token, to the step again.",
    )
    answers = {"description": "`accept` passes it, anything else refuses.", "examples": ["accept"]}
    form_token = {"description": _FORM_TOKEN["description"] + " Without it nothing is answered, and the step comes again."}
    described["requestBody"] = _form({"answer": answers, "form_token": form_token}, required=())
    return _posted(described)


def _file() -> Json:
    return parts.open_file("checkout", "checkoutFile", "A file of the pages", rendering.ASSETS)


def _browsers(operation_id: str, summary: str, place: list[Json], pages: Mapping[int, str], redirect: str) -> Json:
    responses = parts.failures(errors.RouteNotFound.code, errors.OutcomeUnknown.code, *parts.FOR_BROWSERS)
    for status, description in {**pages, 410: _CLOSED}.items():
        page = parts.answer(f"{HTTPStatus(status).phrase}: {description}", dict(_HTML))
        page["content"] |= responses.get(str(status), {}).get("content", {})
        responses[str(status)] = page
    responses["303"] = parts.answer(redirect, {}, headers=("Location",))
    return {
        "operationId": operation_id,
        "tags": ["checkout"],
        "summary": summary,
        "security": [],
        "parameters": [*place, parts.request_id_header()],
        "responses": responses,
    }


def _posted(described: Json) -> Json:
    """With the answers to a body that did not come whole."""
    for status, answer in parts.failures(*parts.OF_A_BODY, *parts.FOR_BUYERS).items():
        described["responses"][status] = answer
    return described


def _form(properties: Json, *, required: tuple[str, ...]) -> Json:
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"required": bool(required), "content": {FORM: {"schema": schema}}}


def _typed(name: str) -> Json:
    """What a buyer types into the form."""
    if name == requests.NUMBER.name:
        return parts.told(requests.NUMBER) | {"type": "string", "pattern": f"^{AROUND}[ -]*(?:[0-9][ -]*){{12,19}}{AROUND}$"}
    if name == requests.VERIFICATION_VALUE.name:
        return parts.told(requests.VERIFICATION_VALUE) | {"type": "string", "pattern": f"^(?:{AROUND}[0-9]{{3,4}})?{AROUND}$"}
    if name == requests.HOLDER.name:
        return parts.told(requests.HOLDER) | parts.text(requests.HOLDER_MAXIMUM)
    if name == "exp_month":
        return {"description": "Month, 1 to 12.", "examples": ["01"], **parts.decimal(0, 12)}
    years: dict[str, Any] = {"description": "Year; of two digits it is one of 2000 to 2099.", "examples": ["2030"]}
    return {**years, "type": "string", "pattern": f"^{AROUND}0{{0,16}}(?:[1-9][0-9]?|2[01][0-9]{{2}}){AROUND}$"}
