"""A customer: its fields, their rules, and what the wire shows of it.

Sources: [S] the eComCharge page "Customers", [P] the sister brand's newer page, [D] our choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ecomcharge.base.addresses import accept_email, accept_ip, is_ipv4, is_plain_email
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.base.postal import COUNTRIES, accept_country, state_is_required, state_of, zip_fits
from ecomcharge.base.validation import BLANK, INVALID, INVALID_IP, Field, ValidationErrors, are_plain, message_of


class CustomerBody(msgspec.Struct):
    """A request's body as it came: any JSON value for any field, unknown keys ignored [W]."""

    first_name: Any = None
    last_name: Any = None
    address: Any = None
    country: Any = None
    city: Any = None
    zip: Any = None
    state: Any = None
    phone: Any = None
    email: Any = None
    ip: Any = None
    external_id: Any = None


BODY: Final = msgspec.json.Decoder(CustomerBody)


class CustomerFields(msgspec.Struct, frozen=True):
    """What a customer is made of, checked. ``None`` means absent."""

    first_name: str | None = None
    last_name: str | None = None
    address: str | None = None
    country: str | None = None
    city: str | None = None
    zip: str | None = None
    state: str | None = None
    phone: str | None = None
    email: str | None = None
    ip: str | None = None
    external_id: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """The customer object, keys in the documented order [S]; ``external_id`` after them [P]."""

    id: str
    first_name: str | None
    last_name: str | None
    address: str | None
    country: str | None
    city: str | None
    zip: str | None
    state: str | None
    phone: str | None
    email: str | None
    ip: str | None
    external_id: str | None = None


FIRST_NAME: Final = Field("first_name", "First name of the customer.", "[S]", example="John")
LAST_NAME: Final = Field("last_name", "Last name of the customer.", "[S]", example="Doe")
ADDRESS: Final = Field("address", "Address of the customer.", "[S]", example="1st Street")
COUNTRY: Final = Field(
    "country",
    "Country in ISO 3166-1 alpha-2 format. Lower case is taken and stored in capitals.",
    "[S]",
    example="US",
    accept=accept_country,
)
CITY: Final = Field("city", "City of the customer.", "[S]", example="Denver")
ZIP: Final = Field("zip", "ZIP or postal code. If country is US: `NNNNN` or `NNNNN-NNNN`.", "[S]", example="92006")
STATE: Final = Field(
    "state",
    "Required if country is US or CA, and then the two-letter code of one of its states or provinces.",
    "[S]",
    example="CO",
)
PHONE: Final = Field("phone", "Phone number of the customer.", "[S]", example="+1-555-555-5555")
EMAIL: Final = Field(
    "email",
    "E-mail address of the customer. The syntax is checked, the domain is not looked up.",
    "[S]",
    example="customer@example.com",
    blank=(BLANK,),
    accept=accept_email,
)
IP: Final = Field(
    "ip",
    "IPv4 or IPv6 address of the customer's device, stored in canonical form.",
    "[S]",
    example="127.0.0.1",
    blank=(INVALID_IP, BLANK),
    accept=accept_ip,
    refusal=INVALID_IP,
    overlong=INVALID_IP,
)
EXTERNAL_ID: Final = Field("external_id", "The merchant's own id of the customer.", "[P]", example="user-42")

FIELDS: Final = (FIRST_NAME, LAST_NAME, ADDRESS, COUNTRY, CITY, ZIP, STATE, PHONE, EMAIL, IP, EXTERNAL_ID)
FIELD_NAMES: Final = tuple(field.name for field in FIELDS)
REQUIRED_NAMES: Final = tuple(field.name for field in FIELDS if field.required)
_STORED_FIELDS: Final = tuple(dataclasses.replace(field, blank=()) for field in FIELDS)


def validate(body: CustomerBody) -> CustomerFields:
    """The fields of a new customer. Raises ``ValidationFailed`` with every fault of every field."""
    values = msgspec.structs.astuple(body)[: len(FIELD_NAMES)]
    if are_plain(values) and _is_taken_as_it_is(given := CustomerFields(*values)):
        return given
    faults = ValidationErrors()
    customer = read_each(body, faults)
    faults.raise_if_any(FIELD_NAMES)
    return customer


def _is_taken_as_it_is(plain: CustomerFields) -> bool:
    """Whether reading it field by field would come to the same: so with nearly every customer, and in half the time."""
    country, state = plain.country, plain.state
    return (
        plain.email is not None
        and plain.ip is not None
        and (country is None or country in COUNTRIES)
        and (plain.zip is None or zip_fits(country, plain.zip))
        and (not state_is_required(country) if state is None else state_of(country, state) == state)
        and is_ipv4(plain.ip)
        and is_plain_email(plain.email)
    )


def read_each(body: CustomerBody, faults: ValidationErrors) -> CustomerFields:
    country = COUNTRY.read(body.country, faults)
    return CustomerFields(
        first_name=FIRST_NAME.read(body.first_name, faults),
        last_name=LAST_NAME.read(body.last_name, faults),
        address=ADDRESS.read(body.address, faults),
        country=country,
        city=CITY.read(body.city, faults),
        zip=_validate_zip(body.zip, country, faults),
        state=_validate_state(body.state, country, faults),
        phone=PHONE.read(body.phone, faults),
        email=EMAIL.read(body.email, faults),
        ip=IP.read(body.ip, faults),
        external_id=EXTERNAL_ID.read(body.external_id, faults),
    )


def validate_partial(body: CustomerBody, faults: ValidationErrors) -> CustomerFields:
    """The fields of a customer that comes with a subscription: what is given is checked, nothing is required [W]."""
    told = ValidationErrors()
    customer = read_each(body, told)
    blank = {EMAIL.name: EMAIL.blank, IP.name: IP.blank, STATE.name: (BLANK,)}
    for name, texts in told.to_dict(FIELD_NAMES).items():
        if tuple(texts) != blank.get(name):
            for text in texts:
                faults.add(name, text)
    return customer


class IdentifiedBody(CustomerBody):
    """A customer out of a file or another server, with the id that it had there, if any."""

    id: Any = None


def validate_with_id(body: IdentifiedBody) -> tuple[str | None, CustomerFields]:
    """The id, if there is one, and the fields. Raises ``ValidationFailed`` with every fault of all of them.

    A record with a valid id was in a store before, and is only held to what a store may hold.
    """
    if body.id is None or body.id == "":
        return None, validate(body)
    if isinstance(body.id, str) and CUSTOMER_ID.match(body.id):
        return body.id, validate_stored(body)
    errors: dict[str, Sequence[str]] = {"id": [INVALID]}
    try:
        validate(body)
    except ValidationFailed as invalid:
        errors.update(invalid.errors)
    raise ValidationFailed(message_of(errors), errors)


def validate_stored(body: CustomerBody) -> CustomerFields:
    """The fields of a customer that was stored before. Raises ``ValidationFailed`` with every fault of every field.

    Each field that is given keeps its own rule. Nothing is required, and state and zip are taken as they are: a customer
    may have come with a subscription, and the payment page adds fields one by one, whatever the country is.
    """
    values = msgspec.structs.astuple(body)[: len(FIELD_NAMES)]
    if are_plain(values) and _is_taken_as_it_is(given := CustomerFields(*values)):
        return given
    faults = ValidationErrors()
    customer = CustomerFields(*[field.read(value, faults) for field, value in zip(_STORED_FIELDS, values, strict=True)])
    faults.raise_if_any(FIELD_NAMES)
    return customer


def _validate_zip(value: object, country: str | None, faults: ValidationErrors) -> str | None:
    text = ZIP.read(value, faults)
    if text is not None and not zip_fits(country, text):
        faults.add(ZIP.name, INVALID)
    return text


def _validate_state(value: object, country: str | None, faults: ValidationErrors) -> str | None:
    text = STATE.read(value, faults)
    if text is not None:
        text = state_of(country, text)
        if text is None:
            faults.add(STATE.name, INVALID)
    elif state_is_required(country) and not faults.has(STATE.name):
        faults.add(STATE.name, BLANK)
    return text
