"""Customers, described."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ecomcharge.base import errors
from ecomcharge.base.postal import COUNTRIES, STATES, ZIP_OF_COUNTRY
from ecomcharge.base.validation import Field
from ecomcharge.customers import model
from ecomcharge.web.openapi import examples, parts
from ecomcharge.web.openapi.parts import AROUND, BLANK, NULL, Json, ref

ID: Final = {"type": "string", "pattern": parts.CUSTOMER_ID, "examples": [parts.CUSTOMER_ID_EXAMPLE]}

_ADDRESS: Final = {"type": "string", "format": "idn-email", "maxLength": 254}


def paths() -> Json:
    return {
        "/customers": {"post": _create(), "get": _list()},
        "/customers/{customer_id}": {"get": _read()},
    }


def schemas() -> Json:
    return {"NewCustomer": _new_customer(), "Customer": _customer(), "CustomerId": ID}


def _create() -> Json:
    return {
        "operationId": "createCustomer",
        "tags": ["customers"],
        "summary": "Create a customer",
        "description": parts.IDEMPOTENT,
        "parameters": parts.creation_headers(),
        "requestBody": parts.json_body(
            "NewCustomer",
            {
                "customer": {"summary": "A customer", "value": examples.NEW_CUSTOMER},
                "least": {
                    "summary": "No more than is required",
                    "value": {name: examples.NEW_CUSTOMER[name] for name in model.REQUIRED_NAMES},
                },
            },
        ),
        "responses": {
            "201": parts.answer(
                "The customer as stored: texts trimmed, codes in capitals, the address in canonical form.",
                parts.json_of("Customer", examples.CUSTOMER),
                headers=("Location", "Idempotent-Replayed", "Link"),
                links={
                    "read": {"operationId": "readCustomer", "parameters": {"customer_id": "$response.body#/id"}},
                    "list": {"operationId": "listCustomers", "parameters": {"email": "$response.body#/email"}},
                },
            ),
            **parts.failures(*parts.OF_CREATE, errors.ValidationFailed.code, *parts.FOR_SHOPS),
        },
    }


def _list() -> Json:
    return {
        "operationId": "listCustomers",
        "tags": ["customers"],
        "summary": "List customers",
        "description": parts.paging_told("customer", "customers"),
        "parameters": [
            parts.query("email", "Only customers with exactly this e-mail address.", {"type": "string"}),
            parts.query("external_id", "Only customers with exactly this id of the merchant's.", {"type": "string"}),
            *parts.paging("customer", parts.CUSTOMER_ID),
        ],
        "responses": {
            "200": parts.answer(
                "An array of customers, `[]` when there are none.",
                parts.list_of("Customer", examples.CUSTOMER),
                headers=("Link",),
            ),
            **parts.failures(errors.BadParameter.code, *parts.FOR_SHOPS),
        },
    }


def _read() -> Json:
    return {
        "operationId": "readCustomer",
        "tags": ["customers"],
        "summary": "Read a customer",
        "parameters": [parts.path_parameter("customer_id", ref("schemas", "CustomerId")), parts.request_id_header()],
        "responses": {
            "200": parts.answer("The customer.", parts.json_of("Customer", examples.CUSTOMER), headers=("Link",)),
            **parts.failures(*parts.OF_AN_ID, *parts.FOR_SHOPS),
        },
    }


def _new_customer() -> Json:
    return {
        "type": "object",
        "description": (
            "Blank and null mean absent. Blank space around a text is trimmed. Unknown keys are ignored. "
            "A whole number is taken as its decimal text."
        ),
        "required": list(model.REQUIRED_NAMES),
        "properties": {field.name: _property(field, required=field.required) for field in model.FIELDS},
        "allOf": [_country_rule(country, required=True) for country in STATES],
        "examples": [examples.NEW_CUSTOMER],
    }


def details() -> Json:
    """A customer that comes with a subscription: nothing is required, what is given is checked [W]."""
    return {
        "title": "details",
        "type": "object",
        "description": "A new customer. Only the given fields are checked.",
        "properties": {
            "id": {"enum": ["", None], "description": "Absent."},
            **{field.name: _property(field, required=False) for field in model.FIELDS},
        },
        "allOf": [_country_rule(country, required=False) for country in STATES],
    }


def _property(field: Field, *, required: bool) -> Json:
    """What a field accepts, whatever the others hold."""
    absent = [] if required else [BLANK, NULL]
    if field is model.IP:
        return parts.told(field) | {
            "anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}, *absent]
        }
    if field is model.EMAIL:
        return parts.told(field) | {"anyOf": [_ADDRESS, *absent]} if absent else email()
    if field is model.COUNTRY:
        return parts.told(field) | {"anyOf": [*_code(COUNTRIES), BLANK, NULL]}
    return parts.optional_text(field)


def email() -> Json:
    return parts.told(model.EMAIL) | _ADDRESS


def _country_rule(country: str, *, required: bool) -> Json:
    """What a country asks of the state, and of the zip where it has a form of its own."""
    state = {"anyOf": [*_code(STATES[country]), *([] if required else [BLANK, NULL])]}
    then: Json = {"properties": {model.STATE.name: state}}
    if required:
        then["required"] = [model.STATE.name]
    if country in ZIP_OF_COUNTRY:
        form = ZIP_OF_COUNTRY[country].pattern.removesuffix(r"\Z")
        then["properties"][model.ZIP.name] = {
            "anyOf": [
                {"type": "string", "pattern": f"^{AROUND}{form}{AROUND}$"},
                {"type": "integer", "minimum": 10_000, "maximum": 99_999},
                BLANK,
                NULL,
            ]
        }
    return {
        "if": {
            "required": [model.COUNTRY.name],
            "properties": {model.COUNTRY.name: {"type": "string", "pattern": f"^{AROUND}{_any_case([country])}{AROUND}$"}},
        },
        "then": then,
    }


def _code(codes: Collection[str]) -> list[Json]:
    """A two-letter code: first as it is stored, which people and code generators want to see, then as it is taken."""
    return [
        {"title": "code", "enum": sorted(codes)},
        {
            "title": "code in any case",
            "description": "Stored in capitals.",
            "type": "string",
            "pattern": f"^{AROUND}(?:{_any_case(codes)}){AROUND}$",
        },
    ]


def _any_case(codes: Iterable[str]) -> str:
    """``["CA", "CO"]`` becomes ``[Cc][AOao]``."""
    seconds: dict[str, str] = {}
    for code in sorted(codes):
        seconds[code[0]] = seconds.get(code[0], "") + code[1]
    return "|".join(f"[{first}{first.lower()}][{rest}{rest.lower()}]" for first, rest in seconds.items())


def _customer() -> Json:
    stored = {field.name: _stored(field) for field in model.FIELDS}
    return {
        "type": "object",
        "description": "A customer. More keys may follow these.",
        "required": ["id", *stored],
        "properties": {"id": ref("schemas", "CustomerId"), **stored},
        "examples": [examples.CUSTOMER],
    }


def _stored(field: Field) -> Json:
    if field is model.COUNTRY:
        return {"description": field.description, "enum": [*sorted(COUNTRIES), None]}
    alone = " `null` of a customer that came with a subscription and without it." if field.required else ""
    return {
        "description": field.description + alone,
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": field.maximum,
    }
