"""A plan: when and how much a subscription is charged, and the plan object of the API.

Sources: [P] the platform's page on plans, [W] clients that are in use, [D] our choice. Amounts are minor units.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired, TypedDict
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ecomcharge.base import calendar, card_numbers, money
from ecomcharge.base.calendar import Interval, iso
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.faults import MISPLACED, UNKNOWN_CURRENCY, UNKNOWN_INTERVAL_UNIT, UNKNOWN_LANGUAGE, Fault, ValueRule
from ecomcharge.base.validation import (
    BLANK,
    INVALID,
    Field,
    ValidationErrors,
    is_blank,
    message_of,
    read_boolean,
    read_integer,
    read_object,
)
from ecomcharge.base.wire_types import Moment, NaturalNumber, PositiveNumber, WebAddress
from ecomcharge.plans.terms import Terms, Trial

_LANGUAGES: Final = "en es tr de it ru zh fr da sv no fi pl ja be uk ka ro az lv et pt sr bn tg kk"  # [P]
LANGUAGES: Final = tuple(_LANGUAGES.split())
DEFAULT_LANGUAGE: Final = "en"  # [P]
DEFAULT_ATTEMPTS: Final = 3  # [P]
ATTEMPTS_MAXIMUM: Final = 100
CYCLES_MAXIMUM: Final = 10_000
VISIBLE_FIELDS_MAXIMUM: Final = 50


class PlanBody(msgspec.Struct):
    """The body of a request before validation: any JSON value for any field, unknown keys ignored [W]."""

    id: Any = None
    test: Any = None
    title: Any = None
    currency: Any = None
    plan: Any = None
    trial: Any = None
    language: Any = None
    infinite: Any = None
    billing_cycles: Any = None
    number_payment_attempts: Any = None
    prevent_payments_at_night: Any = None


BODY: Final = msgspec.json.Decoder(PlanBody)


class Price(msgspec.Struct, frozen=True):
    """An amount for each interval."""

    amount: int
    interval: int
    interval_unit: str

    @property
    def every(self) -> Interval:
        return Interval(self.interval, self.interval_unit)


class TrialPrice(Price, frozen=True):
    as_first_payment: bool


class PlanFields(msgspec.Struct, frozen=True):
    """The validated fields of a plan."""

    title: str
    currency: str
    plan: Price
    trial: TrialPrice | None
    language: str
    infinite: bool
    billing_cycles: int | None
    number_payment_attempts: int
    prevent_payments_at_night: bool
    test: bool
    visible_fields: tuple[str, ...]


class Plan(PlanFields, frozen=True, kw_only=True):
    """A stored plan. It never changes, so the terms that a buyer accepted stay the same."""

    id: str
    created_at: int  # UTC milliseconds, as is the next
    updated_at: int


TITLE: Final = Field("title", "What the buyer subscribes to.", "[P]", example="Basic plan", blank=(BLANK,))
CURRENCY: Final = Field(
    "currency",
    "Currency in ISO 4217 alpha-3 format; one that is in use today.",
    "[P]",
    example="EUR",
    blank=(BLANK,),
    accept=lambda text: text if text in money.CURRENCIES else None,
    code=UNKNOWN_CURRENCY,
)
LANGUAGE: Final = Field(
    "language",
    "Language of the page that the buyer sees.",
    "[P]",
    example="en",
    accept=lambda text: text if text in LANGUAGES else None,
    code=UNKNOWN_LANGUAGE,
)
INTERVAL_UNIT: Final = Field(
    "interval_unit",
    "Unit of the interval.",
    "[P]; `week` and `year` [D]",
    example="month",
    blank=(BLANK,),
    accept=lambda text: text if text in calendar.UNITS else None,
    code=UNKNOWN_INTERVAL_UNIT,
)
ORDER: Final = (
    *("test", "title", "currency", "plan", "trial", "language", "infinite", "billing_cycles"),
    *("number_payment_attempts", "prevent_payments_at_night"),
)


def validate(body: PlanBody, errors: ValidationErrors, *, look_for_cards: bool = True) -> PlanFields | None:
    """The fields of a new plan; ``None`` if it is invalid, and ``errors`` then has all its errors."""
    price, visible_fields = _validate_plan(body.plan, errors)
    trial = _validate_trial(body.trial, errors)
    infinite = read_boolean("infinite", body.infinite, errors, default=True)
    cycles = None
    if not infinite:
        cycles = read_integer("billing_cycles", body.billing_cycles, errors, above=0, most=CYCLES_MAXIMUM)
    attempts = read_integer(
        *("number_payment_attempts", body.number_payment_attempts, errors),
        above=0,
        most=ATTEMPTS_MAXIMUM,
        default=DEFAULT_ATTEMPTS,
    )
    title = TITLE.read(body.title, errors)
    currency = CURRENCY.read(body.currency, errors)
    language = LANGUAGE.read(body.language, errors) or DEFAULT_LANGUAGE
    test = read_boolean("test", body.test, errors, default=False)
    by_day = read_boolean("prevent_payments_at_night", body.prevent_payments_at_night, errors, default=False)
    if look_for_cards:
        card_numbers.refuse(TITLE.name, body.title, errors)
        if visible_fields:
            card_numbers.refuse_in("visible_fields", list(visible_fields), errors.nested("plan"))
    if errors.to_dict():
        return None
    assert title is not None
    assert currency is not None
    assert price is not None
    assert attempts is not None
    return PlanFields(title, currency, price, trial, language, infinite, cycles, attempts, by_day, test, visible_fields)


def _validate_plan(value: object, errors: ValidationErrors) -> tuple[Price | None, tuple[str, ...]]:
    given = read_object("plan", value, errors)
    if errors.has("plan"):
        return None, ()
    inner = errors.nested("plan")
    return _validate_price(given, inner, above=0), _visible_fields(given, inner)


def _validate_trial(value: object, errors: ValidationErrors) -> TrialPrice | None:
    """Amount, interval and unit go together only [P]; an amount of 0 is a free trial [W].

    The trial of a plan that has none, which the API returns [P], is none either.
    """
    given = read_object("trial", value, errors)
    if errors.has("trial"):
        return None
    amount, interval, unit = (given.get(name) for name in ("amount", "interval", "interval_unit"))
    if is_blank(amount) and is_blank(interval) and (is_blank(unit) or unit == NO_TRIAL["interval_unit"]):
        return None
    inner = errors.nested("trial")
    price = _validate_price(given, inner, above=-1)
    as_first = read_boolean("as_first_payment", given.get("as_first_payment"), inner, default=False)
    return TrialPrice(price.amount, price.interval, price.interval_unit, as_first) if price else None


def _validate_price(given: dict[str, Any], errors: ValidationErrors, *, above: int) -> Price | None:
    longest = calendar.LONGEST.get(str(given.get("interval_unit")).strip(), calendar.LONGEST["hour"])
    amount = read_integer("amount", given.get("amount"), errors, above=above, most=money.AMOUNT_MAXIMUM)
    interval = read_integer("interval", given.get("interval"), errors, above=0, most=longest)
    unit = INTERVAL_UNIT.read(given.get("interval_unit"), errors)
    return None if amount is None or interval is None or unit is None else Price(amount, interval, unit)


_VISIBLE_FIELDS: Final = ValueRule(f"An array of at most {VISIBLE_FIELDS_MAXIMUM} texts.", ["email"])


def _visible_fields(given_plan: dict[str, Any], errors: ValidationErrors) -> tuple[str, ...]:
    """The visible fields, which the API returns unchanged [P][W]."""
    given = given_plan.get("visible_fields")
    if given is None:
        return ()
    texts = isinstance(given, list) and len(given) <= VISIBLE_FIELDS_MAXIMUM and all(isinstance(name, str) for name in given)
    if not texts or any("\0" in name for name in given):
        errors.add("visible_fields", INVALID, _VISIBLE_FIELDS)
        return ()
    return tuple(given)


def misplaced_test(place: str) -> ValidationFailed:
    """The error of a body with a true ``test`` in a place where it is ignored, so that a real gateway would charge [D]."""
    text = f"must be sent as {place}; where it stands it is ignored, and real cards would be charged"
    names = tuple(place.split("."))
    texts: dict[str, Any] = {"test": [text]}
    for name in reversed(names[:-1]):
        texts = {name: texts}
    fault = Fault(names, text, ValueRule("`true` or `false`, in the plan.", True, MISPLACED))
    return ValidationFailed(message_of(texts), texts, [fault], errors_first=True)


def terms_of(plan: Plan, zone: ZoneInfo) -> Terms:
    trial = plan.trial
    return Terms(
        amount=plan.plan.amount,
        interval=plan.plan.every,
        trial=Trial(trial.amount, trial.every, trial.as_first_payment) if trial else None,
        cycles=None if plan.infinite else plan.billing_cycles,
        attempts=plan.number_payment_attempts,
        by_day=plan.prevent_payments_at_night,
        zone=zone,
    )


def description_of(plan: PlanFields) -> str:
    """``Subscription. Main period: €9.99 each 1 month. Trial: €4.99 each 1 month.`` [P]"""
    main = f"Subscription. Main period: {_price_text(plan.plan, plan.currency)}."
    return f"{main} Trial: {_price_text(plan.trial, plan.currency)}." if plan.trial else main


def _price_text(price: Price, currency: str) -> str:
    return f"{money.readable(price.amount, currency)} each {price.interval} {price.interval_unit}"


class TrialObject(TypedDict):
    """The trial."""

    amount: Annotated[NaturalNumber | None, Meta(description="In minor units; 0 is a free trial. `null` without a trial.")]
    interval: Annotated[PositiveNumber | None, Meta(description="How many units it lasts.")]
    interval_unit: str
    as_first_payment: NotRequired[
        Annotated[bool, Meta(description="Whether its charge counts as the first success. Absent without a trial.")]
    ]


NO_TRIAL: Final[TrialObject] = {"amount": None, "interval": None, "interval_unit": "hour"}  # of a plan without a trial [P]


class PriceObject(TypedDict):
    """The regular charge."""

    amount: Annotated[PositiveNumber, Meta(description="In minor units.")]
    interval: Annotated[PositiveNumber, Meta(description="How many units lie between two charges.")]
    interval_unit: str
    visible_fields: Annotated[list[str], Meta(description="As they were sent.")]


class PlanObject(TypedDict):
    """A plan. More keys may follow these."""

    id: str
    title: Annotated[str, Meta(description=TITLE.description)]
    name: Annotated[str, Meta(description="The title once more.")]
    description: Annotated[str, Meta(description="A sentence with the amounts and intervals.")]
    amount: Annotated[NaturalNumber, Meta(description="The first charge in minor units: of the trial if there is one.")]
    currency: Annotated[str, Meta(description=CURRENCY.description, pattern="^[A-Z]{3}$")]
    language: Annotated[str, Meta(description=LANGUAGE.description)]
    infinite: Annotated[bool, Meta(description="Charged until it is canceled.")]
    billing_cycles: Annotated[PositiveNumber | None, Meta(description="How many cycles are charged; `null` when infinite.")]
    created_at: Annotated[Moment, Meta(description="When it was created. UTC.")]
    updated_at: Annotated[Moment, Meta(description="The same: a plan never changes. UTC.")]
    trial: TrialObject
    plan: PriceObject
    number_payment_attempts: Annotated[PositiveNumber, Meta(description="How often a later charge is tried.")]
    prevent_payments_at_night: Annotated[bool, Meta(description="`true` if charges are made from 08:00 to 20:00 only.")]
    test: Annotated[bool, Meta(description="`true` if every charge is a test.")]
    pay_url: Annotated[WebAddress, Meta(description="Starts a subscription in a buyer's browser.")]
    payment_url: Annotated[WebAddress, Meta(description="The same.")]
    confirm_url: Annotated[WebAddress, Meta(description="The same, with the shop's id.")]


def to_json(plan: Plan, shop_id: int, base_url: str) -> PlanObject:
    """The plan object, keys in the documented order [P]. ``base_url`` is the address of this server for browsers."""
    trial = NO_TRIAL
    if plan.trial is not None:
        trial = {
            "amount": plan.trial.amount,
            "interval": plan.trial.interval,
            "interval_unit": plan.trial.interval_unit,
            "as_first_payment": plan.trial.as_first_payment,
        }
    pay_url = f"{base_url}/plans/{plan.id}/pay"
    return {
        "id": plan.id,
        "title": plan.title,
        "name": plan.title,
        "description": description_of(plan),
        "amount": (plan.trial or plan.plan).amount,
        "currency": plan.currency,
        "language": plan.language,
        "infinite": plan.infinite,
        "billing_cycles": plan.billing_cycles,
        "created_at": iso(plan.created_at),
        "updated_at": iso(plan.updated_at),
        "trial": trial,
        "plan": {
            "amount": plan.plan.amount,
            "interval": plan.plan.interval,
            "interval_unit": plan.plan.interval_unit,
            "visible_fields": list(plan.visible_fields),
        },
        "number_payment_attempts": plan.number_payment_attempts,
        "prevent_payments_at_night": plan.prevent_payments_at_night,
        "test": plan.test,
        "pay_url": pay_url,
        "payment_url": pay_url,
        "confirm_url": f"{base_url}/v2/confirm_order/{plan.id}/{shop_id}",
    }
