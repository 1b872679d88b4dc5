"""The API description of plans."""

from __future__ import annotations

from typing import Final

from ecomcharge.base import ids, money
from ecomcharge.base.calendar import DAY_BEGINS, DAY_ENDS, LONGEST, UNITS
from ecomcharge.plans import model
from ecomcharge.web import openapi
from ecomcharge.web.wire_forms import (
    BLANK,
    EMPTY,
    EMPTY_ARRAY,
    NULL,
    Json,
    boolean,
    choice,
    ref,
    text_field,
    trimmed,
    when,
    whole_number,
)

LEAST_PLAN: Final[Json] = {
    **{field.name: field.example for field in (model.TITLE, model.CURRENCY)},
    "plan": {"amount": 999, "interval": 1, "interval_unit": "month"},
}
NEW_PLAN: Final[Json] = LEAST_PLAN | {
    "trial": {"amount": 499, "interval": 7, "interval_unit": "day", "as_first_payment": True},
    "language": model.DEFAULT_LANGUAGE,
    "infinite": False,
    "billing_cycles": 12,
    "number_payment_attempts": model.DEFAULT_ATTEMPTS,
    "prevent_payments_at_night": True,
    "test": True,
}


PLAN: Final[Json] = openapi.read_json("ecomcharge.plans", "examples.json")["plan"]
PLANS: Final = openapi.Resource("plan", ids.PLAN_ID, PLAN)


def part() -> openapi.Part:
    created = openapi.answer(
        "The plan.",
        openapi.json_content("Plan", PLAN),
        *("Location", "Idempotent-Replayed", "X-Ignored-Keys"),
        links={"read": openapi.link("readPlan", "plan_id"), "pay": openapi.link("payPlan", "plan_id")},
    )
    invalid = openapi.invalid("invalid_plan", {model.TITLE.name: list(model.TITLE.blank)})
    misplaced = openapi.failure(model.misplaced_test("test"), "misplaced_test_of_plan")
    body = openapi.json_body(
        "NewPlan", plan=("A year with a trial week", NEW_PLAN), least=("No more than is required", LEAST_PLAN)
    )
    as_first = "The trial's charge counts as the first success, so that later errors are tried again."
    unit = ref("IntervalUnit")
    return openapi.Part(
        "plans",
        "How often and how much is charged.",
        [
            PLANS.create("A plan never changes.", body, created, invalid, misplaced),
            PLANS.list({}),
            PLANS.read("The terms of the plan, and its links for buyers."),
        ],
        types=[model.PlanObject, model.TrialObject, model.PriceObject],
        schemas={
            "PlanId": PLANS.id_schema(),
            "PlanById": PLANS.by_id(),
            "CurrencyCode": {"enum": sorted(money.CURRENCIES), "description": "ISO 4217 alpha-3."},
            "LanguageCode": {"enum": list(model.LANGUAGES), "description": "ISO 639-1."},
            "IntervalUnit": {"enum": list(UNITS), "description": model.INTERVAL_UNIT.description},
            "NewPlan": _new_plan(),
            "NewPrice": _new_price("The regular charge.", 0, visible_fields=_visible_fields()),
            "NewTrial": _new_price(
                "A trial. An amount of 0 only verifies the card.", -1, as_first_payment=boolean(as_first, default=False)
            ),
            "Plan": {"properties": {"id": ref("PlanId"), "language": ref("LanguageCode")}, "examples": [PLAN]},
            "Trial": {"properties": {"interval_unit": unit}, "examples": [PLAN["trial"]]},
            "Price": {"properties": {"interval_unit": unit}, "examples": [PLAN["plan"]]},
        },
    )


def _new_plan() -> Json:
    parts = list(model.NO_TRIAL)
    no_trial = {"type": "object", "properties": {name: _no_trial(name) for name in parts}}
    attempts = f"How often a later charge is tried. {model.DEFAULT_ATTEMPTS} unless given."
    by_day = f"Charge from {DAY_BEGINS:02d}:00 to {DAY_ENDS}:00 only, in the server's time zone."
    cycles = whole_number("How many cycles are charged.", above=0, most=model.CYCLES_MAXIMUM, example=12)
    finite = {"anyOf": [{"enum": [False, 0]}, trimmed("(?:[Ff][Aa][Ll][Ss][Ee]|0)")]}
    return {
        "type": "object",
        "description": "Amounts are minor units of the currency. Whole numbers are also accepted as decimal text, `true` and "
        "`false` as text, 1 and 0. Full-width digits are read as ASCII digits. Blank and null mean absent. Unknown keys are "
        "ignored.",
        "required": [model.TITLE.name, model.CURRENCY.name, "plan"],
        "properties": {
            "test": boolean("Every charge of the plan is a test.", default=False),
            "title": text_field(model.TITLE),
            "currency": choice(model.CURRENCY, "CurrencyCode", "|".join(sorted(money.CURRENCIES))),
            "plan": ref("NewPrice"),
            "trial": {
                "description": "The first charge. Amount, interval and unit come together or not at all.",
                "anyOf": [ref("NewTrial"), {"title": "NoTrial", **no_trial}, EMPTY_ARRAY, EMPTY, NULL],
            },
            "language": choice(model.LANGUAGE, "LanguageCode", "|".join(model.LANGUAGES)),
            "infinite": boolean("Charged until it is canceled.", default=True),
            "billing_cycles": {"description": "How many cycles are charged. Ignored while `infinite` is true."},
            "number_payment_attempts": whole_number(attempts, above=0, most=model.ATTEMPTS_MAXIMUM, required=False),
            "prevent_payments_at_night": boolean(by_day, default=False),
        },
        **when("infinite", finite, required=["billing_cycles"], properties={"billing_cycles": cycles}),
        "examples": [NEW_PLAN],
    }


def _no_trial(name: str) -> Json:
    """A part of a trial that is absent, or that the plan object of a plan without a trial has."""
    shown = model.NO_TRIAL.get(name)
    return {"description": "Absent.", "anyOf": [{"enum": [shown, None] if shown else [None]}, BLANK]}


def _new_price(description: str, above: int, **more: Json) -> Json:
    """Amount, interval and unit. The longest interval depends on the unit."""
    interval = "How many units lie between two charges, ten years at most."
    limits = {unit: whole_number(f"In {unit}s.", above=0, most=longest) for unit, longest in LONGEST.items()}
    return {
        "type": "object",
        "description": description,
        "required": ["amount", "interval", "interval_unit"],
        "properties": {
            "amount": whole_number("In minor units.", above=above, most=money.AMOUNT_MAXIMUM, example=999),
            "interval": whole_number(interval, above=0, most=max(LONGEST.values()), example=1),
            "interval_unit": choice(model.INTERVAL_UNIT, "IntervalUnit", "|".join(UNITS)),
            **more,
        },
        "allOf": [when("interval_unit", trimmed(unit), properties={"interval": limit}) for unit, limit in limits.items()],
    }


def _visible_fields() -> Json:
    names = {"type": "array", "maxItems": model.VISIBLE_FIELDS_MAXIMUM, "items": {"type": "string", "pattern": "^[^\\x00]*$"}}
    return {"description": "Echoed.", "anyOf": [names, NULL]}
