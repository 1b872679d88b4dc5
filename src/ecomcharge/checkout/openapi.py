"""The API description of the buyer's pages and of the links to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from ecomcharge.base import errors, ids
from ecomcharge.checkout.forms import ASKED_FIRST, NOT_ASKED
from ecomcharge.checkout.rendering import ASSETS
from ecomcharge.customers import model as customers
from ecomcharge.customers.openapi import EMAIL
from ecomcharge.plans.openapi import PLANS
from ecomcharge.subscriptions.openapi import typed_card
from ecomcharge.subscriptions.requests import RETURN_URL_OF_LINK
from ecomcharge.web.openapi import FORM, HTML, Failures, Operation, Part, answer, path_parameter, public_file, query
from ecomcharge.web.wire_forms import Json, matching, of_field, ref, web_address

_CLOSED: Final = {410: "The shop is closed. A page in the buyer's language says so, and nothing is charged."}
_OFFLINE: Final = {503: answer("Service Unavailable: A page says so.", dict(HTML), "Retry-After")}
_UNKNOWN: Final[Failures] = (errors.OutcomeUnknown, errors.BadParameter)
_FORM_TOKEN: Final = {"type": "string", "description": "The token that is in the form of the page."}
_TOKEN: Final = query(
    "token",
    "The `token` of a subscription that is `redirecting`, or of the page of a pay link.",
    ref("CheckoutToken"),
    required=True,
)
_RETURN_URL: Final = query("return_url", RETURN_URL_OF_LINK.description, web_address(RETURN_URL_OF_LINK))
_LINKED: Final = (
    query("plan", "On the page of a pay link: the plan. Its token fits this plan and this `return_url` only.", ref("PlanId")),
    _RETURN_URL,
)
_PAYMENT: Final = path_parameter("payment_id", "The id of the payment.", matching(ids.PAYMENT_ID))
_SHOP: Final = path_parameter("shop_id", "The id of the shop.", {"type": "integer", "minimum": 1})
_PAGE: Final = "/v2/checkout"
_STEP: Final = "/process/{payment_id}"


def part() -> Part:
    page = {404: "No subscription has this token.", 409: "No gateway is configured that may charge it. Nothing was charged."}
    form_again = {
        403: "The form again: its token was missing or old. Nothing was charged.",
        422: "The form again, with the errors in it. Nothing was charged.",
    }
    step = {404: "There is no such payment."}
    or_result, result = {200: "The form, or the result."}, {200: "The result."}
    own_step = {200: "The sandbox's own step, or the result."}
    to_step, back = "To the 3-D Secure step", "Back to the hosted page, or to the merchant"
    refuse = ("challengeAnswer", "Pass the sandbox's 3-D Secure step, or refuse")
    return Part(
        "checkout",
        "Pages for a buyer's browser. They ask for no credentials: everybody who has the link may pay.",
        [
            *_links("/plans/{plan_id}/pay", "payPlan", "Follow the pay link of a plan", [PLANS.place()]),
            *_links(
                "/v2/confirm_order/{plan_id}/{shop_id}",
                "confirmOrder",
                "Follow the pay link of a plan, with the shop's id",
                [PLANS.place(), _SHOP],
            ),
            _page("GET", _PAGE, ("checkoutPage", "The hosted page"), page | or_result, f"{to_step} under way."),
            _page(
                *("POST", _PAGE, ("checkoutPay", "Pay on the hosted page")),
                *(page | form_again, f"{to_step}, or back to the page.", _card_form()),
                limited="The form again, with what was entered except the card's number and security code. Nothing was charged.",
            ),
            public_file("/v2/checkout/{file}", "checkoutFile", "A file of the pages", ASSETS),
            _page("GET", _STEP, ("challengePage", "The 3-D Secure step"), step | own_step, f"{back}."),
            _page("POST", _STEP, refuse, step | result, f"{back}; without a valid form token, to the step again.", _step_form()),
        ],
        schemas={"CheckoutToken": {"type": "string", "pattern": "^[0-9a-f]{64}$", "examples": ["c7" * 32]}},
    )


def _links(path: str, id: str, summary: str, place: list[Json]) -> Iterable[Operation]:
    """Two ways to follow a link."""
    pages = {
        404: "There is no such plan. A page says so.",
        409: "No gateway is configured for the shop. A page says so.",
        **_CLOSED,
    }
    answers = {302: answer("To the hosted page. The body is empty.", None, "Location"), **_html(pages), **_OFFLINE}
    parameters = [*place, _RETURN_URL]
    failures = (errors.RouteNotFound, *_UNKNOWN)
    visit = "For a buyer's browser. Creates nothing: the subscription is created when the buyer submits the form of the page."
    yield Operation("GET", path, id, summary, visit, answers, failures, parameters, public=True)
    text = "Creates a subscription at once, which waits for its buyer for a day."
    limited = {**answers, **_limited("A page says so. Nothing was created.")}
    yield Operation("POST", path, f"{id}ByPost", f"{summary} by POST", text, limited, failures, parameters, public=True)


def _page(
    method: str,
    path: str,
    name: tuple[str, str],
    pages: Mapping[int, str],
    redirect: str,
    form: Json | None = None,
    *,
    limited: str = "",
) -> Operation:
    answers = {
        **_html({**pages, **_CLOSED}),
        **_OFFLINE,
        303: answer(redirect, None, "Location"),
        **(_limited(limited) if limited else {}),
    }
    failures = (errors.RouteNotFound, *_UNKNOWN)
    place = [_TOKEN, *_LINKED] if path == _PAGE else [_PAYMENT]
    text = "For a buyer's browser, in the buyer's language."
    return Operation(method, path, *name, text, answers, failures, place, form, public=True)


def _limited(text: str) -> dict[int, Json]:
    headers = ("Retry-After", "RateLimit-Policy", "RateLimit")
    return {429: answer(f"{HTTPStatus.TOO_MANY_REQUESTS.phrase}: {text}", dict(HTML), *headers)}


def _html(pages: Mapping[int, str]) -> dict[int, Json]:
    return {status: answer(f"{HTTPStatus(status).phrase}: {text}", dict(HTML)) for status, text in pages.items()}


def _form(properties: Json, required: tuple[str, ...], example: Json) -> Json:
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"required": bool(required), "content": {FORM: {"schema": schema, "example": example}}}


def _card_form() -> Json:
    card = typed_card()
    asked = {field.name: of_field(field, type="string") for field in customers.FIELDS if field.name not in NOT_ASKED}
    own = {customers.EMAIL.name: of_field(customers.EMAIL, **EMAIL), "form_token": _FORM_TOKEN}
    required = ("number", "verification_value", "exp_month", "exp_year", "form_token", *ASKED_FIRST)
    example = {name: schema["examples"][0] for name, schema in card.items()}
    example |= {customers.EMAIL.name: customers.EMAIL.example, "form_token": "9f2c"}
    return _form(card | asked | own, required, example)


def _step_form() -> Json:
    passes = {"description": "`accept` passes the step, anything else refuses.", "examples": ["accept"]}
    token = {"description": f"{_FORM_TOKEN['description']} Without it nothing changes; the response is the step."}
    return _form({"answer": passes, "form_token": token}, (), {"answer": "accept", "form_token": "9f2c"})
