"""The API description of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ecomcharge.base import errors, ids, postal, validation
from ecomcharge.base.validation import Field
from ecomcharge.customers import model, search
from ecomcharge.web import openapi
from ecomcharge.web.openapi import Operation
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
_HEADERS: Final = ("ETag", "Last-Modified", "Link")  # of an answer with one customer
_CUSTOMERS: Final = openapi.Resource("customer", ids.CUSTOMER_ID, CUSTOMER, headers=_HEADERS)
_FILTERS: Final = {
    "email": "with this e-mail address, in upper or lower case",
    "external_id": "with exactly this id of the merchant's",
}
_Q: Final = openapi.query(
    "q",
    "Only customers that match every word of this text. A word matches the beginning of a word of the first or last name, of "
    "the e-mail address, of the external id, or of the digits of the phone number, in upper or lower case. Letters with and "
    "without accents are different. A phone number may have blanks. The id of a customer finds this customer.",
    {"type": "string", "pattern": r"\S", "maxLength": search.TEXT_MAXIMUM},
)
METADATA_KEY: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,40}$"
METADATA: Final[Json] = {
    "description": f"The merchant's own texts: at most {model.METADATA_MAXIMUM_KEYS} keys of 1 to 40 characters.",
    "examples": [{"tier": "gold"}],
}
_FORMS: Final = (
    "Blank and null mean absent. Blank space around a text is trimmed. Unknown keys are ignored. A whole number is stored as "
    "its decimal text."
)
_PATH: Final = "/customers/{customer_id}"
_BY_EXTERNAL_ID: Final = "/customers/external/{external_id}"
_PATCH: Final = (
    "A JSON merge patch (RFC 7396): fields that are not given keep their values, null and blank clear an optional field. Keys of "
    "`metadata` are merged one by one. After the change the customer must meet the rules of a creation; a fault that it "
    "has already is no error."
)
_REPLACE: Final = "Fields that are not given are cleared. A fault that the customer has already is no error."
_PUT_EXTERNAL: Final = (
    "Creates a customer if the shop has none with this external id, otherwise replaces all fields. Concurrent requests create "
    "one customer."
)
_OLDEST: Final = "If several customers have this external id, the request reads or changes the oldest."
_OF_CHANGES: Final = "Idempotency keys work as for a creation."


def _list() -> openapi.Operation:
    found = _CUSTOMERS.list(_FILTERS)
    return replace(found, parameters=[*found.parameters, _Q])


def part(further: Sequence[openapi.Operation] = ()) -> openapi.Part:
    """``further`` are operations of customers that other features provide."""
    least = {name: NEW_CUSTOMER[name] for name in model.REQUIRED_NAMES}
    created = openapi.answer(
        "The customer as stored: texts trimmed, codes in capitals, the IP address in canonical form.",
        openapi.json_content("Customer", CUSTOMER),
        *("Location", "Idempotent-Replayed", *_HEADERS),
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
            _list(),
            _conditional(
                _CUSTOMERS.read("The fields as stored, and a link to the customer's subscriptions.", errors.CustomerErased)
            ),
            *_changes(body),
            *_by_external_id(body, created),
            *further,
        ],
        types=[model.Customer],
        schemas={
            "CustomerId": _CUSTOMERS.id_schema(),
            "CustomerById": _CUSTOMERS.by_id(),
            "CountryCode": {"enum": sorted(postal.COUNTRIES), "description": "ISO 3166-1 alpha-2, and XK."},
            "NewCustomer": _body(_FORMS, required=True),
            "CustomerPatch": {
                key: value for key, value in _body(_PATCH, required=True).items() if key not in ("required", "examples")
            },
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


def _conditional(read: Operation) -> Operation:
    unchanged = openapi.answer("The client's copy is up to date.", None, *_HEADERS)
    return replace(read, answers={**read.answers, 304: unchanged}, parameters=[*read.parameters, openapi.IF_NONE_MATCH])


def _changes(body: Json) -> list[Operation]:
    patch = {"phone": "+1-555-555-0100", "city": None}
    media_types = openapi.json_content("CustomerPatch", phone=("A new phone number, and no city", patch))
    patch_body = {"required": True, "content": {"application/merge-patch+json": media_types["application/json"], **media_types}}
    by_post = "The same as PATCH, for clients that cannot send PATCH."
    return [
        _change("PATCH", "patchCustomer", "Change fields of a customer", _PATCH, patch_body),
        _change("POST", "changeCustomer", "Change fields of a customer", by_post, patch_body),
        _change("PUT", "replaceCustomer", "Replace all fields of a customer", _REPLACE, body),
    ]


def _change(method: str, id: str, summary: str, description: str, body: Json) -> Operation:
    failures = (*openapi.OF_A_KEY, *openapi.OF_AN_ID, errors.CustomerErased, errors.PreconditionFailed, errors.ValidationFailed)
    parameters = [_CUSTOMERS.place(), openapi.IF_MATCH, *openapi.IDEMPOTENCY]
    return Operation(method, _PATH, id, summary, f"{description} {_OF_CHANGES}", {200: _changed()}, failures, parameters, body)


def _by_external_id(body: Json, created: Json) -> list[Operation]:
    text = text_field(replace(model.EXTERNAL_ID, blank=(validation.BLANK,)))["anyOf"][0]
    place = openapi.path_parameter("external_id", "The merchant's own id of the customer, percent-encoded.", text)
    found = openapi.answer("The customer.", openapi.json_content("Customer", CUSTOMER), *_HEADERS)
    failures = (*openapi.OF_A_KEY, errors.RouteNotFound, errors.PreconditionFailed, errors.ValidationFailed)
    read = ("GET", _BY_EXTERNAL_ID, "readCustomerByExternalId", "Read a customer by external id", _OLDEST)
    put = ("PUT", _BY_EXTERNAL_ID, "putCustomerByExternalId", "Get or create a customer by external id")
    only_create = openapi.parameter("header", "If-None-Match", "`*`: create only, and return 412 if there is such a customer.")
    return [
        _conditional(Operation(*read, {200: found}, openapi.OF_AN_ID, [place])),
        Operation(
            *(*put, f"{_PUT_EXTERNAL} {_OLDEST} {_OF_CHANGES}", {200: _changed(), 201: created}, failures),
            *([place, openapi.IF_MATCH, only_create, *openapi.IDEMPOTENCY], body),
        ),
    ]


def _changed() -> Json:
    content = openapi.json_content("Customer", CUSTOMER)
    return openapi.answer("The customer after the change.", content, "Idempotent-Replayed", *_HEADERS)


def _body(description: str, *, required: bool) -> Json:
    """A new customer; or, where nothing is ``required``, one that comes with a subscription [W]."""
    properties = {field.name: _accepted(field, required=required) for field in model.FIELDS}
    value = text_field(model.METADATA_VALUE)
    metadata = {
        "type": "object",
        "propertyNames": {"pattern": METADATA_KEY},
        "additionalProperties": value,
        "maxProperties": model.METADATA_MAXIMUM_KEYS,
    }
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
