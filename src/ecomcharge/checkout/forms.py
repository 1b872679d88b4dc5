"""The forms of the checkout pages: which fields they ask for, how they are read and validated, and the texts beside them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from babel import Locale

from ecomcharge.base.calendar import HOUR
from ecomcharge.base.card_numbers import CARD_NUMBER, has_card_number, has_valid_check_digit
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.postal import COUNTRIES
from ecomcharge.base.validation import BLANK, INVALID, TOO_LONG, ValidationErrors
from ecomcharge.checkout.translations import Translation, gettext_noop
from ecomcharge.customers.model import FIELDS as CUSTOMER_FIELDS
from ecomcharge.customers.model import Customer, CustomerBody, validate_partial
from ecomcharge.gateways.base import CardDetails
from ecomcharge.subscriptions import model, requests
from ecomcharge.subscriptions.model import Subscription
from ecomcharge.web.messages import Request

FORM: Final = "application/x-www-form-urlencoded"
FORM_MAXIMUM_FIELDS: Final = 50
CARD_NAMES: Final = ("number", "exp_month", "exp_year", "verification_value", "holder")
ECHOED: Final = ("exp_month", "exp_year", "holder")  # the only fields of a card that a page may repeat
ASKED_FIRST: Final = ("email",)  # a subscription's customer has at least this
NOT_ASKED: Final = ("ip", "external_id")  # a buyer does not know these
EXPIRED_CARD: Final = "is past"  # error of a card's month; only the page has it, not the API
_DAY: Final = 24 * HOUR
_TOO_LONG_BEGINS: Final = TOO_LONG.partition("{")[0]
_ACCENTS: Final = re.compile(r"[\u0300-\u036f]")

LABELS: Final[Mapping[str, str]] = {
    "number": gettext_noop("Card number"),
    "exp_month": gettext_noop("Month"),
    "exp_year": gettext_noop("Year"),
    "verification_value": gettext_noop("Security code"),
    "holder": gettext_noop("Name on card"),
    "first_name": gettext_noop("First name"),
    "last_name": gettext_noop("Last name"),
    "address": gettext_noop("Address"),
    "country": gettext_noop("Country"),
    "city": gettext_noop("City"),
    "zip": gettext_noop("Postal code"),
    "state": gettext_noop("State or region"),
    "phone": gettext_noop("Phone"),
    "email": gettext_noop("E-mail"),
}
PROBLEM_TEXTS: Final[Mapping[str, str]] = {
    "blank": gettext_noop("Please fill this in."),
    "invalid": gettext_noop("Please check this entry."),
    "too_long": gettext_noop("At most %(maximum)s characters, please."),
    "expired": gettext_noop("This card has expired."),
    "card_number": gettext_noop("Please enter the card number in its own field only."),
    # Fields with a text of their own where they are invalid
    "number": gettext_noop("This is not a valid card number. Please check its digits."),
    "verification_value": gettext_noop("Please enter the 3 or 4 digits."),
    "exp_month": gettext_noop("Please enter a month from 01 to 12."),
    "exp_year": gettext_noop("Please enter the year that is on the card."),
    "email": gettext_noop("Please enter an address such as name@example.com."),
}
FORM_TOO_OLD: Final = gettext_noop("This page was open for too long. Please enter your card once more.")

TOO_MANY_PAYMENTS: Final = gettext_noop(
    "Too many payments were tried from your network. Nothing was taken. Please wait a minute and try again."
)
CARD_TRIED_TOO_OFTEN: Final = gettext_noop(
    "This card was tried too often. Nothing was taken. Please use another card, or try again in an hour."
)


class Problem(NamedTuple):
    """An error of one field, in the buyer's language."""

    name: str
    label: str
    text: str


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form. A malformed form has no fields, so the page then names what is missing."""
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type != FORM:
        return {}
    body = await request.read_body()
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FORM_MAXIMUM_FIELDS))
    except (ValueError, EcomchargeError):
        return {}


def missing_fields(subscription: Subscription, customer: Customer | None) -> list[str]:
    """The customer's fields that the page asks for: those that the merchant wants, or at least an e-mail address [P]."""
    wanted = [*ASKED_FIRST, *model.visible_customer_fields(subscription)]
    names = [field.name for field in CUSTOMER_FIELDS if field.name in wanted and field.name not in NOT_ASKED]
    return [name for name in names if customer is None or getattr(customer, name) is None]


def validate_card(form: Mapping[str, str], errors: ValidationErrors, now: int) -> CardDetails | None:
    """The card, validated by the rules of the API and by more: a first charge that the bank declines ends the subscription.

    The security code is required, the check digit has to fit, and the card must not have expired. ``now`` is in UTC
    milliseconds.
    """
    card = requests.validate_card({name: form.get(name) for name in CARD_NAMES}, errors, hosted=True)
    if not form.get("verification_value", "").strip():
        errors.add("verification_value", BLANK)
    number = requests.NUMBER.read(form.get("number"), ValidationErrors())
    if number is not None and not has_valid_check_digit(number):
        errors.add("number", INVALID)
    yesterday = datetime.fromtimestamp((now - _DAY) / 1000, UTC)  # the date in the time zones that are behind UTC
    if card is not None and (card.exp_year, card.exp_month) < (yesterday.year, yesterday.month):
        errors.add("exp_month", EXPIRED_CARD)
    return card


def validate_customer(form: Mapping[str, str], names: Sequence[str], errors: ValidationErrors) -> dict[str, str | None]:
    """The customer's fields of these names, validated by the rules of the API. The e-mail address is required if asked for."""
    given = validate_partial(CustomerBody(**{name: form.get(name) for name in names}), errors)
    for name in names:
        if getattr(given, name) is None and not errors.has(name) and name in ASKED_FIRST:
            errors.add(name, BLANK)
    return {name: getattr(given, name) for name in names}


def without_card(form: Mapping[str, str]) -> dict[str, str]:
    """The form without number and security code, so that no object refers to them longer than the card."""
    return {name: entry for name, entry in form.items() if name not in ("number", "verification_value")}


def echo_of(form: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The entries that a page repeats: not one with a card number, which the buyer put into the wrong field."""
    return {name: "" if has_card_number(entry := form.get(name, "")) else entry for name in (*ECHOED, *names)}


def problems_of(errors: Mapping[str, Any], translation: Translation) -> dict[str, Problem]:
    """The errors of the API by field, in the buyer's language. Of each field the first one."""
    return {
        name: Problem(name, translation.gettext(LABELS[name]), _problem_text(name, str(texts[0]), translation))
        for name, texts in errors.items()
    }


def _problem_text(name: str, error: str, translation: Translation) -> str:
    maximum = "".join(filter(str.isdigit, error)) if error.startswith(_TOO_LONG_BEGINS) else ""
    message = PROBLEM_TEXTS[_problem_kind(name, error, has_maximum=bool(maximum))]
    return translation.gettext(message) % {"maximum": maximum}


def _problem_kind(name: str, error: str, *, has_maximum: bool) -> str:
    """A key of ``PROBLEM_TEXTS``."""
    if error == BLANK:
        return "blank"
    if error == EXPIRED_CARD:
        return "expired"
    if error == CARD_NUMBER:
        return "card_number"
    if has_maximum:
        return "too_long"
    return name if name in PROBLEM_TEXTS else "invalid"


@lru_cache(maxsize=64)
def countries(language: str) -> list[tuple[str, str]]:
    """Code and name of every country, sorted by name without regard to accents."""
    names = Locale.parse(language).territories
    named = ((code, names.get(code, code)) for code in COUNTRIES)
    return sorted(named, key=lambda country: _ACCENTS.sub("", unicodedata.normalize("NFKD", country[1])).casefold())
