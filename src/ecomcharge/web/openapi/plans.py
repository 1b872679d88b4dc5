"""Plans, described."""

from __future__ import annotations

from typing import Any, Final

from ecomcharge.base import calendar, errors, money
from ecomcharge.plans import model
from ecomcharge.web.openapi import examples, parts
from ecomcharge.web.openapi.parts import AROUND, EMPTY, NULL, Json, ref

ID: Final = {"type": "string", "pattern": parts.PLAN_ID, "examples": [parts.PLAN_ID_EXAMPLE]}


def paths() -> Json:
    return {
        "/plans": {"post": _create(), "get": _list()},
        "/plans/{plan_id}": {"get": _read()},
    }


def schemas() -> Json:
    return {"NewPlan": new_plan(), "Plan": _plan(), "PlanId": ID}


def _create() -> Json:
    return {
        "operationId": "createPlan",
        "tags": ["plans"],
        "summary": "Create a plan",
        "description": f"A plan never changes. {parts.IDEMPOTENT}",
        "parameters": parts.creation_headers(),
        "requestBody": parts.json_body(
            "NewPlan",
            {
                "plan": {"summary": "A year with a trial week", "value": examples.NEW_PLAN},
                "least": {"summary": "No more than is required", "value": examples.LEAST_PLAN},
            },
        ),
        "responses": {
            "201": parts.answer(
                "The plan.",
                parts.json_of("Plan", examples.PLAN),
                headers=("Location", "Idempotent-Replayed", "X-Ignored-Keys"),
                links={
                    "read": {"operationId": "readPlan", "parameters": {"plan_id": "$response.body#/id"}},
                    "pay": {"operationId": "payPlan", "parameters": {"plan_id": "$response.body#/id"}},
                },
            ),
            **parts.failures(*parts.OF_CREATE, parts.INVALID_PLAN, parts.MISPLACED_TEST_OF_PLAN, *parts.FOR_SHOPS),
        },
    }


def _list() -> Json:
    return {
        "operationId": "listPlans",
        "tags": ["plans"],
        "summary": "List plans",
        "description": parts.paging_told("plan", "plans"),
        "parameters": parts.paging("plan", parts.PLAN_ID),
        "responses": {
            "200": parts.answer(
                "An array of plans, `[]` when there are none.", parts.list_of("Plan", examples.PLAN), headers=("Link",)
            ),
            **parts.failures(errors.BadParameter.code, *parts.FOR_SHOPS),
        },
    }


def _read() -> Json:
    return {
        "operationId": "readPlan",
        "tags": ["plans"],
        "summary": "Read a plan",
        "parameters": [parts.path_parameter("plan_id", ref("schemas", "PlanId")), parts.request_id_header()],
        "responses": {
            "200": parts.answer("The plan.", parts.json_of("Plan", examples.PLAN)),
            **parts.failures(*parts.OF_AN_ID, *parts.FOR_SHOPS),
        },
    }


def new_plan() -> Json:
    return {
        "type": "object",
        "description": (
            "Amounts are minor units of the currency. Whole numbers are also taken as decimal text, `true` and `false` as "
            "text. Blank and null mean absent. Unknown keys are ignored."
        ),
        "required": [model.TITLE.name, model.CURRENCY.name, "plan"],
        "properties": {
            "test": parts.truth("Every charge of the plan is a test.", default=False),
            "title": parts.required_text(model.TITLE),
            "currency": parts.one_of(model.CURRENCY, sorted(money.CURRENCIES)),
            "plan": _price("The regular charge.", above=0, visible_fields=_new_visible_fields()),
            "trial": _new_trial(),
            "language": parts.one_of(model.LANGUAGE, model.LANGUAGES),
            "infinite": parts.truth("Charged until it is canceled.", default=True),
            "billing_cycles": {"description": "How many cycles are charged. Ignored while `infinite` is true."},
            "number_payment_attempts": parts.whole_number(
                f"How often a later charge is tried. {model.DEFAULT_ATTEMPTS} unless given.",
                above=0,
                most=model.ATTEMPTS_MAXIMUM,
                required=False,
            ),
            "prevent_payments_at_night": parts.truth(
                f"Charge from {calendar.DAY_BEGINS:02d}:00 to {calendar.DAY_ENDS}:00 only, in the server's time zone.",
                default=False,
            ),
        },
        "if": {
            "required": ["infinite"],
            "properties": {
                "infinite": {
                    "anyOf": [
                        {"const": False},
                        {"type": "string", "pattern": f"^{AROUND}[Ff][Aa][Ll][Ss][Ee]{AROUND}$"},
                    ]
                }
            },
        },
        "then": {
            "required": ["billing_cycles"],
            "properties": {
                "billing_cycles": parts.whole_number(
                    "How many cycles are charged.", above=0, most=model.CYCLES_MAXIMUM, example=12
                )
            },
        },
        "examples": [examples.NEW_PLAN],
    }


def _price(description: str, *, above: int, **more: Json) -> Json:
    """Amount, interval and unit. How long the interval may be depends on the unit."""
    return {
        "type": "object",
        "description": description,
        "required": ["amount", "interval", "interval_unit"],
        "properties": {
            "amount": parts.whole_number("In minor units.", above=above, most=money.AMOUNT_MAXIMUM, example=999),
            "interval": parts.whole_number(
                "How many units lie between two charges, ten years at most.",
                above=0,
                most=max(calendar.LONGEST.values()),
                example=1,
            ),
            "interval_unit": parts.one_of(model.INTERVAL_UNIT, calendar.UNITS),
            **more,
        },
        "allOf": [_longest(unit) for unit in calendar.UNITS],
    }


def _longest(unit: str) -> Json:
    return {
        "if": {"properties": {"interval_unit": {"type": "string", "pattern": f"^{AROUND}{unit}{AROUND}$"}}},
        "then": {"properties": {"interval": parts.whole_number(f"In {unit}s.", above=0, most=calendar.LONGEST[unit])}},
    }


def _new_trial() -> Json:
    none = {"enum": [None], "description": "Absent."}
    first = parts.truth("The trial's charge counts as the first success, so that later errors are tried again.", default=False)
    return {
        "description": "What is charged first. Amount, interval and unit come together or not at all.",
        "anyOf": [
            {"title": "trial", **_price("A trial; an amount of 0 verifies the card only.", above=-1, as_first_payment=first)},
            {
                "title": "no trial",
                "type": "object",
                "properties": dict.fromkeys(("amount", "interval", "interval_unit"), none),
            },
            EMPTY,
            NULL,
        ],
    }


def _new_visible_fields() -> Json:
    names = {"type": "array", "maxItems": model.VISIBLE_FIELDS_MAXIMUM, "items": {"type": "string", "pattern": "^[^\\x00]*$"}}
    return {"description": "Echoed.", "anyOf": [names, NULL]}


def _plan() -> Json:
    url: Json = {"pattern": "^https?://"}
    unit = {"enum": list(calendar.UNITS), "description": model.INTERVAL_UNIT.description}
    trial = {
        "amount": parts.shown_number("In minor units; 0 is a free trial. `null` without a trial.", nullable=True),
        "interval": parts.shown_number("How many units it lasts.", nullable=True, minimum=1),
        "interval_unit": {**unit, "enum": [*calendar.UNITS]},
        "as_first_payment": {
            "type": "boolean",
            "description": "Whether its charge counts as the first success. Absent without a trial.",
        },
    }
    price = {
        "amount": parts.shown_number("In minor units.", minimum=1),
        "interval": parts.shown_number("How many units lie between two charges.", minimum=1),
        "interval_unit": unit,
        "visible_fields": {"type": "array", "items": {"type": "string"}, "description": "As they were sent."},
    }
    properties: dict[str, Any] = {
        "id": ref("schemas", "PlanId"),
        "title": parts.shown_text(model.TITLE.description),
        "name": parts.shown_text("The title once more."),
        "description": parts.shown_text("Made of the amounts and intervals."),
        "amount": parts.shown_number("What is charged first, in minor units: the trial's amount where there is a trial."),
        "currency": parts.shown_text(model.CURRENCY.description, pattern="^[A-Z]{3}$"),
        "language": {"enum": list(model.LANGUAGES), "description": model.LANGUAGE.description},
        "infinite": {"type": "boolean", "description": "Charged until it is canceled."},
        "billing_cycles": parts.shown_number("How many cycles are charged; `null` when infinite.", nullable=True, minimum=1),
        "created_at": parts.moment("When it was created."),
        "updated_at": parts.moment("The same: a plan never changes."),
        "trial": parts.shown_object("The trial.", trial, optional=("as_first_payment",)),
        "plan": parts.shown_object("The regular charge.", price),
        "number_payment_attempts": parts.shown_number("How often a later charge is tried.", minimum=1),
        "prevent_payments_at_night": {"type": "boolean", "description": "Whether charges wait for the day."},
        "test": {"type": "boolean", "description": "Whether every charge is a test."},
        "pay_url": parts.shown_text("Starts a subscription in a buyer's browser.", **url),
        "payment_url": parts.shown_text("The same.", **url),
        "confirm_url": parts.shown_text("The same, with the shop's id.", **url),
    }
    return parts.shown_object("A plan. More keys may follow these.", properties, example=examples.PLAN)
