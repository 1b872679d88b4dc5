"""A customer: its fields, their rules, and what the wire shows of it.

Sources: [S] the eComCharge page "Customers", [P] the sister brand's newer page, [D] our choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ecomcharge import fields
from ecomcharge.errors import Invalid
from ecomcharge.fields import Faults, Field
from ecomcharge.ids import CUSTOMER_ID


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
    accept=fields.accept_country,
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
    blank=(fields.BLANK,),
    accept=fields.accept_email,
)
IP: Final = Field(
    "ip",
    "IPv4 or IPv6 address of the customer's device, stored in canonical form.",
    "[S]",
    example="127.0.0.1",
    blank=(fields.INVALID_IP, fields.BLANK),
    accept=fields.accept_ip,
    refusal=fields.INVALID_IP,
    overlong=fields.INVALID_IP,
)
EXTERNAL_ID: Final = Field("external_id", "The merchant's own id of the customer.", "[P]", example="user-42")

FIELDS: Final = (FIRST_NAME, LAST_NAME, ADDRESS, COUNTRY, CITY, ZIP, STATE, PHONE, EMAIL, IP, EXTERNAL_ID)
FIELD_NAMES: Final = tuple(field.name for field in FIELDS)
REQUIRED_NAMES: Final = tuple(field.name for field in FIELDS if field.required)
_STORED_FIELDS: Final = tuple(dataclasses.replace(field, blank=()) for field in FIELDS)


def checked(body: CustomerBody) -> CustomerFields:
    """The fields of a new customer. Raises ``Invalid`` with every fault of every field."""
    values = msgspec.structs.astuple(body)[: len(FIELD_NAMES)]
    if fields.are_plain(values) and _is_taken_as_it_is(given := CustomerFields(*values)):
        return given
    faults = Faults()
    customer = read_each(body, faults)
    faults.raise_if_any(FIELD_NAMES)
    return customer


def _is_taken_as_it_is(plain: CustomerFields) -> bool:
    """Whether reading it field by field would come to the same: so with nearly every customer, and in half the time."""
    country, state = plain.country, plain.state
    return (
        plain.email is not None
        and plain.ip is not None
        and (country is None or country in fields.COUNTRIES)
        and (plain.zip is None or fields.zip_fits(country, plain.zip))
        and (not fields.state_is_required(country) if state is None else fields.state_of(country, state) == state)
        and fields.is_ipv4(plain.ip)
        and fields.is_plain_email(plain.email)
    )


def read_each(body: CustomerBody, faults: Faults) -> CustomerFields:
    country = COUNTRY.read(body.country, faults)
    return CustomerFields(
        first_name=FIRST_NAME.read(body.first_name, faults),
        last_name=LAST_NAME.read(body.last_name, faults),
        address=ADDRESS.read(body.address, faults),
        country=country,
        city=CITY.read(body.city, faults),
        zip=_checked_zip(body.zip, country, faults),
        state=_checked_state(body.state, country, faults),
        phone=PHONE.read(body.phone, faults),
        email=EMAIL.read(body.email, faults),
        ip=IP.read(body.ip, faults),
        external_id=EXTERNAL_ID.read(body.external_id, faults),
    )


def checked_if_given(body: CustomerBody, faults: Faults) -> CustomerFields:
    """The fields of a customer that comes with a subscription: what is given is checked, nothing is required [W]."""
    told = Faults()
    customer = read_each(body, told)
    blank = {EMAIL.name: EMAIL.blank, IP.name: IP.blank, STATE.name: (fields.BLANK,)}
    for name, texts in told.told(FIELD_NAMES).items():
        if tuple(texts) != blank.get(name):
            for text in texts:
                faults.add(name, text)
    return customer


class IdentifiedBody(CustomerBody):
    """A customer out of a file or another server, with the id that it had there, if any."""

    id: Any = None


def checked_with_id(body: IdentifiedBody) -> tuple[str | None, CustomerFields]:
    """The id, if there is one, and the fields. Raises ``Invalid`` with every fault of all of them.

    A record with a valid id was in a store before, and is only held to what a store may hold.
    """
    if body.id is None or body.id == "":
        return None, checked(body)
    if isinstance(body.id, str) and CUSTOMER_ID.match(body.id):
        return body.id, validate_stored(body)
    errors: dict[str, Sequence[str]] = {"id": [fields.INVALID]}
    try:
        checked(body)
    except Invalid as invalid:
        errors.update(invalid.errors)
    raise Invalid(fields.message_of(errors), errors)


def validate_stored(body: CustomerBody) -> CustomerFields:
    """The fields of a customer that was stored before. Raises ``Invalid`` with every fault of every field.

    Each field that is given keeps its own rule. Nothing is required, and state and zip are taken as they are: a customer
    may have come with a subscription, and the payment page adds fields one by one, whatever the country is.
    """
    values = msgspec.structs.astuple(body)[: len(FIELD_NAMES)]
    if fields.are_plain(values) and _is_taken_as_it_is(given := CustomerFields(*values)):
        return given
    faults = Faults()
    customer = CustomerFields(*[field.read(value, faults) for field, value in zip(_STORED_FIELDS, values, strict=True)])
    faults.raise_if_any(FIELD_NAMES)
    return customer


def _checked_zip(value: object, country: str | None, faults: Faults) -> str | None:
    text = ZIP.read(value, faults)
    if text is not None and not fields.zip_fits(country, text):
        faults.add(ZIP.name, fields.INVALID)
    return text


def _checked_state(value: object, country: str | None, faults: Faults) -> str | None:
    text = STATE.read(value, faults)
    if text is not None:
        text = fields.state_of(country, text)
        if text is None:
            faults.add(STATE.name, fields.INVALID)
    elif fields.state_is_required(country) and not faults.about(STATE.name):
        faults.add(STATE.name, fields.BLANK)
    return text
