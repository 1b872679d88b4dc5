"""The request bodies of subscriptions and their validation."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ecomcharge.base import card_numbers
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.faults import SUBSCRIPTION_OVER, UNKNOWN_CARD_TOKEN, UNKNOWN_ID, Fault, Rule, ValueRule
from ecomcharge.base.text_forms import half_width
from ecomcharge.base.validation import (
    BASE,
    BLANK,
    INVALID,
    NOT_AN_ARRAY,
    NOT_STRINGS,
    TOO_MANY,
    Field,
    ValidationErrors,
    human_name,
    read_integer,
    read_object,
)
from ecomcharge.customers.model import CustomerBody, CustomerFields, validate_partial
from ecomcharge.gateways.base import CardDetails
from ecomcharge.plans import model as plans
from ecomcharge.plans.model import PlanBody, PlanFields
from ecomcharge.subscriptions.app_links import is_app_link

NO_SUCH: Final = "{noun} with this ID doesn't exist for this account"  # [P] of plans, [D] of the others


NO_SUCH_TOKEN: Final = "card with this token doesn't exist for this account"  # noqa: S105 - a sentence [D]


OVER_ALREADY: Final = "Subscription is over and can't be canceled"  # [D]


URL_MAXIMUM: Final = 2_000


HOLDER_MAXIMUM: Final = 32  # [P]


_NUMBER: Final = re.compile(r"[0-9]{12,19}\Z")  # [P]


_CODE: Final = re.compile(r"[0-9]{3,4}\Z")  # [P]


_SPACES: Final = re.compile(r"[ -]+")


RECEIPT_LINES_MAXIMUM: Final = 50


class SubscriptionBody(msgspec.Struct):
    """The body of a request before validation: any JSON value for any field, unknown or misplaced keys ignored [W]."""

    customer: Any = None
    plan: Any = None
    tracking_id: Any = None
    device_id: Any = None
    return_url: Any = None
    notification_url: Any = None
    additional_data: Any = None
    dynamic_billing_descriptor: Any = None
    receipt_text: Any = None
    avs_cvc_verification: Any = None
    settings: Any = None
    language: Any = None
    card: Any = None


BODY: Final = msgspec.json.Decoder(SubscriptionBody)


class CancelBody(msgspec.Struct):
    cancel_reason: Any = None


CANCEL_BODY: Final = msgspec.json.Decoder(CancelBody)


class SubscriptionRequest(msgspec.Struct, frozen=True):
    """A validated request for a subscription. Plan and customer are given by id or by their fields."""

    plan: str | PlanFields
    customer: str | CustomerFields | None
    card: CardDetails | str | None
    tracking_id: str | None
    device_id: str | None
    return_url: str | None
    notification_url: str | None
    additional_data: str  # a JSON object
    options: str  # a JSON object: values that are only stored and returned
    misplaced_test: bool = False  # the body has a true ``test`` where it is ignored

    @property
    def language(self) -> str | None:
        language: str | None = msgspec.json.decode(self.options).get("language")
        return language


def _is_web_address(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return text if known and text.split() == [text] else None  # no white space


TRACKING_ID: Final = Field(
    "tracking_id", "The merchant's own id of the order; an integer is taken too.", "[P][W]", example="order-42"
)


DEVICE_ID: Final = Field("device_id", "The buyer's device.", "[P]", example="device-7")


RETURN_URL: Final = Field(
    "return_url",
    "Where the buyer goes back to; `id=sbs_…` is added to its query. A web address, or a link to an app such as `myapp://paid`.",
    "[P]",
    example="https://shop.example/thanks",
    maximum=URL_MAXIMUM,
    accept=lambda text: text if is_app_link(text) else _is_web_address(text),
)


RETURN_URL_OF_LINK: Final = Field(  # everybody can write a pay link, and its page is ours
    "return_url",
    "Where the buyer goes back to; `id=sbs_…` is added to its query.",
    "[P]",
    example="https://shop.example/thanks",
    maximum=URL_MAXIMUM,
    accept=_is_web_address,
)


NOTIFICATION_URL: Final = Field(
    "notification_url",
    "Where webhooks go.",
    "[P]",
    example="https://shop.example/webhooks",
    maximum=URL_MAXIMUM,
    accept=_is_web_address,
)


DESCRIPTOR: Final = Field("dynamic_billing_descriptor", "The text on the buyer's card statement.", "[P]", example="Tea box")


CANCEL_REASON: Final = Field("cancel_reason", "Why it is canceled.", "[P]", example="Customer asked", blank=(BLANK,))


HOLDER: Final = Field("holder", "Name on the card.", "[P]", example="John Doe", maximum=HOLDER_MAXIMUM)


NUMBER: Final = Field(
    "number",
    "Number of the card, 12 to 19 digits.",
    "[P]",
    example="4200000000000000",
    blank=(BLANK,),
    accept=lambda text: digits if _NUMBER.match(digits := _SPACES.sub("", half_width(text))) else None,
)


VERIFICATION_VALUE: Final = Field(
    "verification_value",
    "Security code, 3 or 4 digits.",
    "[P]",
    example="123",
    accept=lambda text: digits if _CODE.match(digits := half_width(text)) else None,
)


RECEIPT_LINE: Final = Field("receipt_text", "A line of the receipt.", "[P]", example="Thank you")


CARD_TOKEN: Final = Field(
    "token",
    "Token of a card that was used before.",
    "[P]",
    example="5fd27da7-d1c3-4b3f-9b6b-0c3a7f6c1f11",
    code=UNKNOWN_CARD_TOKEN,
)


_PLAN_ID_RULE: Final = ValueRule("The id of a plan of this shop.", "pln_7aee5afb954c7ef8", UNKNOWN_ID)


_CUSTOMER_ID_RULE: Final = ValueRule("The id of a customer of this shop.", "cst_7aee5afb954c7ef7", UNKNOWN_ID)


_PLAN_RULE: Final = ValueRule(
    "The id of a plan, or the fields of a new one.",
    {"title": "Basic plan", "currency": "EUR", "plan": {"amount": 999, "interval": 1, "interval_unit": "month"}},
)


_CUSTOMER_RULE: Final = ValueRule("The id of a customer, or the fields of a new one.", {"email": "customer@example.com"})


_YEAR_RULE: Final = ValueRule("2000 to 2199; a year of two digits is one of 2000 to 2099.", 2030)


_RECEIPT_RULE: Final = ValueRule(f"An array of at most {RECEIPT_LINES_MAXIMUM} texts.", ["Thank you"])


_TEXTS: Final = (TRACKING_ID, DEVICE_ID, RETURN_URL, NOTIFICATION_URL, DESCRIPTOR)


ORDER: Final = (
    *(BASE, "customer", "plan"),
    *(field.name for field in _TEXTS),
    *("additional_data", "receipt_text", "avs_cvc_verification", "settings", "language", "card"),
)


# Not in this list: ``tracking_id``, since an id that a merchant generates has the form of a card number now and then, and the
# addresses, whose parameters have such ids too.
_WITHOUT_CARD_NUMBER: Final = (
    *(DEVICE_ID.name, DESCRIPTOR.name),
    *("additional_data", "receipt_text", "avs_cvc_verification", "settings"),
)


def validate(body: SubscriptionBody, *, look_for_cards: bool = True) -> SubscriptionRequest:
    """The validated request. Raises ``ValidationFailed`` with every error of every field.

    ``look_for_cards`` may be False if ``card_numbers.may_contain`` is False for the JSON of the body.
    """
    errors = ValidationErrors()
    plan = _validate_plan(body.plan, errors, look_for_cards=look_for_cards)
    card = _validate_card(body.card, errors)
    customer = _validate_customer(body.customer, errors, required=bool(body.card), look_for_cards=look_for_cards)
    texts = {field.name: field.read(getattr(body, field.name), errors) for field in _TEXTS}
    additional_data = read_object("additional_data", body.additional_data, errors)
    settings = read_object("settings", body.settings, errors)
    language = plans.LANGUAGE.read(
        body.language or settings.get("language"), ValidationErrors()
    )  # an unknown one is no error [W]
    receipt_text = _validate_receipt_text(body.receipt_text, errors)
    if look_for_cards:
        for name in _WITHOUT_CARD_NUMBER:
            card_numbers.refuse_in(name, getattr(body, name), errors)
    errors.raise_if_any(ORDER, errors_first=True)
    assert plan is not None
    options = {
        "language": language,
        "settings": settings,
        "dynamic_billing_descriptor": texts[DESCRIPTOR.name],
        "receipt_text": receipt_text,
        "avs_cvc_verification": body.avs_cvc_verification,
    }
    return SubscriptionRequest(
        plan=plan,
        customer=customer,
        card=card,
        tracking_id=texts[TRACKING_ID.name],
        device_id=texts[DEVICE_ID.name],
        return_url=texts[RETURN_URL.name],
        notification_url=texts[NOTIFICATION_URL.name],
        additional_data=msgspec.json.encode(additional_data).decode(),
        options=msgspec.json.encode({name: value for name, value in options.items() if value}).decode(),
    )


def _validate_plan(value: object, errors: ValidationErrors, *, look_for_cards: bool) -> str | PlanFields | None:
    """A plan by id or by its fields. Errors of its fields become sentences about the whole plan [P]."""
    given = read_object("plan", value, errors)
    if errors.has("plan"):
        return None
    if not given:
        errors.add("plan", BLANK, _PLAN_RULE)
        return None
    if given.get("id") not in (None, ""):
        return str(given["id"])
    inner = ValidationErrors()
    plan = plans.validate(msgspec.convert(given, PlanBody), inner, look_for_cards=look_for_cards)
    for fault in inner.faults(plans.ORDER):
        sentence = f"{human_name(fault.path[-1])} {fault.text}"
        errors.add_fault(BASE, Fault(("plan", *fault.path), sentence, fault.rule, own_code=fault.code))
    return plan


def _validate_customer(
    value: object, errors: ValidationErrors, *, required: bool, look_for_cards: bool
) -> str | CustomerFields | None:
    """A customer by id or by its fields. Only given fields are checked: real clients cannot send an ip [W]."""
    given = read_object("customer", value, errors)
    if errors.has("customer"):
        return None
    if given.get("id") not in (None, ""):
        return str(given["id"])
    if not any(entry not in (None, "") for entry in given.values()):
        if required:
            errors.add("customer", BLANK, _CUSTOMER_RULE)
        return None
    inner = errors.nested("customer")
    return validate_partial(msgspec.convert(given, CustomerBody), inner, look_for_cards=look_for_cards)


def _validate_card(value: object, errors: ValidationErrors) -> CardDetails | str | None:
    given = read_object("card", value, errors)
    if errors.has("card") or not given:
        return None
    if given.get("token") not in (None, ""):
        return CARD_TOKEN.read(given["token"], errors.nested("card"))
    return validate_card(given, errors.nested("card"))


def validate_card(given: dict[str, Any], errors: ValidationErrors, *, hosted: bool = False) -> CardDetails | None:
    """A card that its holder entered; ``None`` if it is invalid, and ``errors`` then has its errors."""
    number = NUMBER.read(given.get("number"), errors)
    code = VERIFICATION_VALUE.read(given.get("verification_value"), errors)
    holder = HOLDER.read(given.get("holder"), errors)
    month = read_integer("exp_month", given.get("exp_month"), errors, above=0, most=12)
    year = read_integer("exp_year", given.get("exp_year"), errors, above=0, most=2199, example=2030)
    if year is not None and 100 <= year < 2000:
        errors.add("exp_year", INVALID, _YEAR_RULE)
    card_numbers.refuse(HOLDER.name, given.get("holder"), errors)
    if errors.to_dict() or number is None or month is None or year is None:
        return None
    return CardDetails(number, code, holder, month, year + 2000 if year < 100 else year, hosted)


def _validate_receipt_text(value: object, errors: ValidationErrors) -> list[str]:
    """The lines of the receipt: at most 50 texts [D]; a blank one stays a blank line."""
    if value is None:
        return []
    if not isinstance(value, list):
        errors.add("receipt_text", NOT_AN_ARRAY, _RECEIPT_RULE)
        return []
    if not all(isinstance(line, str) for line in value):
        errors.add("receipt_text", NOT_STRINGS, _RECEIPT_RULE)
        return []
    if len(value) > RECEIPT_LINES_MAXIMUM:
        errors.add("receipt_text", TOO_MANY.format(maximum=RECEIPT_LINES_MAXIMUM), _RECEIPT_RULE)
        return []
    lines = []
    for number, line in enumerate(value):
        found = ValidationErrors()
        lines.append(RECEIPT_LINE.read(line, found) or "")
        for fault in found.faults():
            errors.add_fault("receipt_text", replace(fault, path=("receipt_text", str(number))))
    return lines


def validate_reason(body: CancelBody) -> str:
    """The reason. Raises ``ValidationFailed`` if it is missing [P]."""
    errors = ValidationErrors()
    reason = CANCEL_REASON.read(body.cancel_reason, errors)
    card_numbers.refuse(CANCEL_REASON.name, body.cancel_reason, errors)
    errors.raise_if_any(errors_first=True)
    assert reason is not None
    return reason


def unknown_plan() -> ValidationFailed:
    return _refused("plan", "id", NO_SUCH.format(noun="plan"), _PLAN_ID_RULE)


def unknown_customer() -> ValidationFailed:
    return _refused("customer", "id", NO_SUCH.format(noun="customer"), _CUSTOMER_ID_RULE)


def unknown_card_token() -> ValidationFailed:
    return _refused("card", CARD_TOKEN.name, NO_SUCH_TOKEN, CARD_TOKEN)


def _refused(name: str, field: str, text: str, rule: Rule) -> ValidationFailed:
    """The error of an object of the request: ``{"errors": {"plan": {"base": [text]}}, "message": text}`` [P]."""
    return ValidationFailed(text, {name: {BASE: [text]}}, [Fault((name, field), text, rule)], errors_first=True)


def is_over() -> ValidationFailed:
    """The error of a cancel of a subscription that has ended in another way [D]."""
    rule = ValueRule("A subscription that has not ended.", None, SUBSCRIPTION_OVER)
    return ValidationFailed(OVER_ALREADY, {BASE: [OVER_ALREADY]}, [Fault((), OVER_ALREADY, rule)], errors_first=True)
