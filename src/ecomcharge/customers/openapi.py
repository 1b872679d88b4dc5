"""The API description of customers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ecomcharge.base import errors, ids, postal
from ecomcharge.base.validation import Field
from ecomcharge.customers import model
from ecomcharge.web import openapi
from ecomcharge.web.wire_forms import (
    ABSENT,
    BLANK,
    EMPTY,
    EMPTY_ARRAY,
    NULL,
    Json,
    any_case,
    choice,
    ip_addresses,
    of_field,
    ref,
    text_field,
    trimmed,
    when,
)

NEW_CUSTOMER: Final[Json] = {field.name: field.example for field in model.FIELDS if field is not model.EXTERNAL_ID}
CUSTOMER: Final[Json] = {"id": "cst_7aee5afb954c7ef7", **NEW_CUSTOMER}
EMAIL: Final[Json] = {"type": "string", "format": "idn-email", "maxLength": 254}
_CUSTOMERS: Final = openapi.Resource("customer", ids.CUSTOMER_ID, CUSTOMER, headers=["Link"])
_FILTERS: Final = {"email": "with exactly this e-mail address", "external_id": "with exactly this id of the merchant's"}
METADATA: Final[Json] = {
    "description": f"The merchant's own texts: at most {model.METADATA_MAXIMUM_KEYS} keys of 1 to 40 characters.",
    "examples": [{"tier": "gold"}],
}
_FORMS: Final = (
    "Blank and null mean absent. Blank space around a text is trimmed. Unknown keys are ignored. A whole number is stored as "
    "its decimal text."
)


def part(further: Sequence[openapi.Operation] = ()) -> openapi.Part:
    """``further`` are operations of customers that other features provide."""
    least = {name: NEW_CUSTOMER[name] for name in model.REQUIRED_NAMES}
    created = openapi.answer(
        "The customer as stored: texts trimmed, codes in capitals, the IP address in canonical form.",
        openapi.json_content("Customer", CUSTOMER),
        *("Location", "Idempotent-Replayed", "Link"),
        links={
            "read": openapi.link("readCustomer", "customer_id"),
            "list": openapi.link("listCustomers", "email", "$response.body#/email"),
        },
    )
    body = openapi.json_body("NewCustomer", customer=("A customer", NEW_CUSTOMER), least=("No more than is required", least))
    return openapi.Part(
        "customers",
        "The people and companies that buy from a shop.",
        [
            _CUSTOMERS.create("", body, created, errors.ValidationFailed),
            _CUSTOMERS.list(_FILTERS),
            _CUSTOMERS.read("The fields as stored, and a link to the customer's subscriptions.", errors.CustomerErased),
            *further,
        ],
        types=[model.Customer],
        schemas={
            "CustomerId": _CUSTOMERS.id_schema(),
            "CustomerById": _CUSTOMERS.by_id(),
            "CountryCode": {"enum": sorted(postal.COUNTRIES), "description": "ISO 3166-1 alpha-2, and XK."},
            "NewCustomer": _body(_FORMS, required=True),
            "CustomerDetails": _body("A new customer. Only the given fields are validated.", required=False),
            "Customer": {
                "properties": {
                    "id": ref("CustomerId"),
                    **{field.name: _stored(field) for field in model.FIELDS},
                    model.METADATA: {"type": "object", "additionalProperties": {"type": "string"}, **METADATA},
                },
                "examples": [CUSTOMER],
            },
        },
    )


def _body(description: str, *, required: bool) -> Json:
    """A new customer; or, where nothing is ``required``, one that comes with a subscription [W]."""
    properties = {field.name: _accepted(field, required=required) for field in model.FIELDS}
    value = text_field(model.METADATA_VALUE)
    metadata = {"type": "object", "additionalProperties": value, "maxProperties": model.METADATA_MAXIMUM_KEYS}
    properties[model.METADATA] = {"anyOf": [metadata, EMPTY_ARRAY, EMPTY, NULL], **METADATA}
    rules = [_country_rule(country, required=required) for country in postal.STATES]
    body = {"type": "object", "description": description, "properties": properties, "allOf": rules}
    if required:
        return body | {"required": list(model.REQUIRED_NAMES), "examples": [NEW_CUSTOMER]}
    return body | {"properties": {"id": ABSENT, **properties}}


def _accepted(field: Field, *, required: bool) -> Json:
    """The schema of a field, independent of the other fields."""
    absent = [] if required else [BLANK, NULL]
    if field is model.IP:
        return of_field(field, anyOf=[*ip_addresses(), *absent])
    if field is model.EMAIL:
        return of_field(field, anyOf=[EMAIL, *absent]) if absent else of_field(field, **EMAIL)
    return choice(field, "CountryCode", any_case(postal.COUNTRIES)) if field is model.COUNTRY else text_field(field)


def _country_rule(country: str, *, required: bool) -> Json:
    """The rule of a country for the state, and for the zip if the country has a pattern for it."""
    absent = [BLANK, NULL]
    codes = postal.STATES[country]
    state = [{"enum": sorted(codes)}, trimmed(f"(?:{any_case(codes)})"), *([] if required else absent)]
    properties = {model.STATE.name: {"anyOf": state}}
    if country in postal.ZIP_OF_COUNTRY:
        text = trimmed(postal.ZIP_OF_COUNTRY[country].pattern.removesuffix(r"\Z"))
        properties[model.ZIP.name] = {"anyOf": [text, {"type": "integer", "minimum": 10_000, "maximum": 99_999}, *absent]}
    needed = {"required": [model.STATE.name]} if required else {}
    return when(model.COUNTRY.name, trimmed(any_case([country])), properties=properties, **needed)


def _stored(field: Field) -> Json:
    if field is model.COUNTRY:
        return {"description": field.description, "anyOf": [ref("CountryCode"), {"type": "null"}]}
    alone = " `null` of a customer that came with a subscription and without it." if field.required else ""
    return {"description": field.description + alone, "minLength": 1, "maxLength": field.maximum}
