"""A customer: its fields, their rules and the customer object of the API.

Sources: [S] the eComCharge page "Customers", [P] the sister brand's newer page, [D] our choice.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence, Set
from typing import Any, Final, NamedTuple

import msgspec

from ecomcharge.base import card_numbers
from ecomcharge.base.addresses import accept_email, accept_ip
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.faults import UNKNOWN_COUNTRY, UNKNOWN_STATE, ValueRule
from ecomcharge.base.ids import CUSTOMER_ID, moment_of
from ecomcharge.base.postal import accept_country, state_is_required, state_of, zip_fits
from ecomcharge.base.text_forms import half_width
from ecomcharge.base.validation import BLANK, INVALID, INVALID_IP, Field, TextFields, ValidationErrors, message_of, read_object


class CustomerBody(msgspec.Struct):
    """The body of a request before validation: any JSON value for any field, unknown keys ignored [W]."""

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
    metadata: Any = None


BODY: Final = msgspec.json.Decoder(CustomerBody)

# The body of a merge patch (RFC 7396): a key that is absent is UNSET, not None.
_PATCH_FIELDS: Final = [(name, Any, msgspec.UNSET) for name in CustomerBody.__struct_fields__]
PATCH: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(msgspec.defstruct("CustomerPatch", _PATCH_FIELDS))


class CustomerFields(msgspec.Struct, frozen=True):
    """The validated fields of a customer. ``None`` means absent."""

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
    metadata: msgspec.Raw | None = None


class Customer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The customer object, keys in the documented order [S]; ``external_id`` [P] and ``metadata`` [D] only if they are set.

    ``metadata`` is a JSON object of texts, ``None`` if it is empty.
    """

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
    metadata: msgspec.Raw | None = None


class StoredCustomer(msgspec.Struct, frozen=True, gc=False):  # a named tuple takes four times as long to make
    """``version`` is 1 at creation and is incremented by every change. ``updated_at`` is ``None`` before the first change."""

    customer: Customer
    version: int
    updated_at: int | None  # UTC milliseconds

    @property
    def changed_at(self) -> int:
        """The time of the last change or of the creation, in UTC milliseconds."""
        return moment_of(self.customer.id) if self.updated_at is None else self.updated_at


class CustomerChange(NamedTuple):
    """A change of a stored customer. ``names`` are the fields whose values differ; without any, nothing is written."""

    before: StoredCustomer
    after: StoredCustomer
    names: Sequence[str]


FIRST_NAME: Final = Field("first_name", "First name of the customer.", "[S]", example="John")
LAST_NAME: Final = Field("last_name", "Last name of the customer.", "[S]", example="Doe")
ADDRESS: Final = Field("address", "Address of the customer.", "[S]", example="1st Street")
COUNTRY: Final = Field(
    "country",
    "Country in ISO 3166-1 alpha-2 format, or XK for Kosovo. Lower case is taken and stored in capitals.",
    "[S]",
    example="US",
    accept=accept_country,
    code=UNKNOWN_COUNTRY,
)
CITY: Final = Field("city", "City of the customer.", "[S]", example="Denver")
ZIP: Final = Field(
    "zip", "ZIP or postal code. If country is US: `NNNNN` or `NNNNN-NNNN`.", "[S]", example="92006", accept=half_width
)
STATE: Final = Field(
    "state",
    "Required if country is US or CA, and then the two-letter code of one of its states or provinces.",
    "[S]",
    example="CO",
    code=UNKNOWN_STATE,
)
_STATE_OF: Final = {"US": STATE, "CA": dataclasses.replace(STATE, example="ON")}
PHONE: Final = Field("phone", "Phone number of the customer.", "[S]", example="+1-555-555-5555", accept=half_width)
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
UNREADABLE: Final = "\ufffd"  # stands for each byte of a path that is not UTF-8: two ids must not become one
OTHER_EXTERNAL_ID: Final = "must be the one in the path"
METADATA: Final = "metadata"
METADATA_MAXIMUM_KEYS: Final = 50
METADATA_KEY: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,40}\Z")
METADATA_VALUE: Final = Field(METADATA, "A value of the metadata.", "[D]", example="red", maximum=500)
_METADATA_RULE: Final = ValueRule(
    f"At most {METADATA_MAXIMUM_KEYS} keys of 1 to 40 characters, with texts of at most 500 characters.",
    {"color": "red"},
)
_NAMES: Final = (*FIELD_NAMES, METADATA)  # in the order of the errors
REQUIRED_NAMES: Final = tuple(field.name for field in FIELDS if field.required)
_BLANK_TEXTS: Final = {EMAIL.name: EMAIL.blank, IP.name: IP.blank, STATE.name: (BLANK,)}
_WITHOUT_CARD_NUMBER: Final = tuple(name for name in FIELD_NAMES if name != EXTERNAL_ID.name)
MAY_LACK: Final = frozenset(_BLANK_TEXTS)  # the fields that the API requires, always or in some countries
_TEXTS: Final = TextFields(FIELDS)
_STORED_TEXTS: Final = TextFields([dataclasses.replace(field, blank=()) for field in FIELDS])
_COUNTRY, _ZIP, _STATE = (FIELDS.index(field) for field in (COUNTRY, ZIP, STATE))


def validate(body: CustomerBody, may_lack: Set[str] = frozenset(), *, look_for_cards: bool = True) -> CustomerFields:
    """The fields of a new customer. Raises ``ValidationFailed`` with every error of every field.

    ``may_lack``: required fields that may be absent nevertheless, of ``MAY_LACK``. ``look_for_cards`` may be False if
    ``card_numbers.may_contain`` is False for the JSON of the body.
    """
    errors = ValidationErrors()
    customer = _read_without(may_lack, body, errors) if may_lack else _read(body, errors)
    if look_for_cards:
        refuse_card_numbers(body, errors)
    errors.raise_if_any(_NAMES)
    return customer


def _read(body: CustomerBody, errors: ValidationErrors) -> CustomerFields:
    values = _TEXTS.read(msgspec.structs.astuple(body), errors)
    country, zip, state = values[_COUNTRY], values[_ZIP], values[_STATE]
    if zip is not None and not zip_fits(country, zip):
        errors.add(ZIP.name, INVALID, ZIP)
    if state is not None:
        values[_STATE] = state_of(country, state)
        if values[_STATE] is None:
            errors.add(STATE.name, INVALID, _STATE_OF.get(country or ""))
    elif state_is_required(country) and not errors.has(STATE.name):
        errors.add(STATE.name, BLANK, _STATE_OF.get(country or ""))
    values.append(None if body.metadata is None else read_metadata(body.metadata, errors))
    return CustomerFields(*values)


def refuse_card_numbers(body: CustomerBody, errors: ValidationErrors) -> None:
    """Add an error for each text that contains a card number, except for ``external_id``.

    An id that a merchant generates has the form of a card number now and then.
    """
    for name in _WITHOUT_CARD_NUMBER:
        shortest = card_numbers.PHONE_SHORTEST if name == PHONE.name else card_numbers.SHORTEST
        card_numbers.refuse(name, getattr(body, name), errors, shortest)
    card_numbers.refuse_in(METADATA, body.metadata, errors)


def read_metadata(value: object, errors: ValidationErrors) -> msgspec.Raw | None:
    """A JSON object of texts, ``None`` if it is empty. A key whose value is null or blank is left out [D]."""
    metadata: dict[str, str] = {}
    has_wrong_key, faults = False, 0
    for key, text in read_object(METADATA, value, errors).items():
        if not METADATA_KEY.match(key):
            if not has_wrong_key:
                errors.add(METADATA, "must have keys of 1 to 40 characters", _METADATA_RULE)
            has_wrong_key = True
            continue
        found = ValidationErrors()
        if (read := METADATA_VALUE.read(text, found)) is not None:
            metadata[key] = read
        for fault in found.faults():
            path = (METADATA,) if card_numbers.has_card_number(key) else (METADATA, key)  # the answer repeats the path
            errors.add_fault(METADATA, dataclasses.replace(fault, path=path))
            faults += 1
        if faults == METADATA_MAXIMUM_KEYS:  # a body may have thousands
            return None
    if len(metadata) > METADATA_MAXIMUM_KEYS:
        errors.add(METADATA, f"must have at most {METADATA_MAXIMUM_KEYS} keys", _METADATA_RULE)
    return msgspec.Raw(msgspec.json.encode(metadata)) if metadata else None


def validate_partial(body: CustomerBody, errors: ValidationErrors, *, look_for_cards: bool = True) -> CustomerFields:
    """The fields of a customer inside a subscription: a given field is checked, no field is required [W]."""
    customer = _read_without(MAY_LACK, body, errors)
    if look_for_cards:
        refuse_card_numbers(body, errors)
    return customer


def _read_without(may_lack: Set[str], body: CustomerBody, errors: ValidationErrors) -> CustomerFields:
    """The fields, with the errors except those about the absence of a field of ``may_lack``."""
    found = ValidationErrors()
    customer = _read(body, found)
    texts = found.to_dict()
    for fault in found.faults(_NAMES):
        name = fault.path[0]
        if name not in may_lack or tuple(texts[name]) != _BLANK_TEXTS[name]:
            errors.add_fault(name, fault)
    return customer


class IdentifiedBody(CustomerBody):
    """A customer of a file or of another server, with the id that it had there, if any."""

    id: Any = None


def validate_with_id(body: IdentifiedBody, may_lack: Set[str] = frozenset()) -> tuple[str | None, CustomerFields]:
    """The id, if there is one, and the fields. Raises ``ValidationFailed`` with every error of all of them.

    A record with a valid id was stored before, so it only has to meet the rules of a stored customer. ``may_lack`` is for
    the other records.
    """
    if body.id is None or body.id == "":
        return None, validate(body, may_lack)
    if isinstance(body.id, str) and CUSTOMER_ID.match(body.id):
        return body.id, validate_stored(body)
    errors: dict[str, Sequence[str]] = {"id": [INVALID]}
    try:
        validate(body, may_lack)
    except ValidationFailed as invalid:
        errors.update(invalid.errors)
    raise ValidationFailed(message_of(errors), errors)


def validate_stored(body: CustomerBody) -> CustomerFields:
    """The fields of a customer that was stored before. Raises ``ValidationFailed`` with every error of every field.

    Each given field keeps its own rule. No field is required, and the country decides nothing about state and zip: a
    customer may have come with a subscription, and the payment page adds single fields.
    """
    errors = ValidationErrors()
    values: list[Any] = [*_STORED_TEXTS.read(msgspec.structs.astuple(body), errors), read_metadata(body.metadata, errors)]
    customer = CustomerFields(*values)
    refuse_card_numbers(body, errors)
    errors.raise_if_any(_NAMES)
    return customer


def merge(stored: Customer, patch: Any) -> CustomerBody:
    """The body of the stored customer after a merge patch (RFC 7396), a value of ``PATCH``."""
    body = _body_of(stored)
    for name in CustomerBody.__struct_fields__:
        value = getattr(patch, name)
        if value is msgspec.UNSET:
            continue
        if name == METADATA:
            value = _merge_metadata(body.metadata, value)
        setattr(body, name, value)
    return body


def _merge_metadata(stored: dict[str, Any] | None, patch: Any) -> Any:
    if patch == []:  # PHP writes an empty object as an empty array [W]
        return stored
    if not isinstance(patch, dict):
        return patch
    return {key: value for key, value in {**(stored or {}), **patch}.items() if value is not None}


def _body_of(customer: Customer) -> CustomerBody:
    fields = {name: getattr(customer, name) for name in FIELD_NAMES}
    return CustomerBody(**fields, metadata=metadata_of(customer))


def metadata_of(customer: Customer | CustomerFields) -> dict[str, str] | None:
    return None if customer.metadata is None else msgspec.json.decode(customer.metadata, type=dict[str, str])


def validate_change(stored: Customer, body: CustomerBody, *, look_for_cards: bool = True) -> CustomerFields:
    """The fields of a stored customer after a change, by the rules of a creation.

    A fault that the stored customer has already is not an error: it may have come with a subscription, without ``email``,
    ``ip`` or ``state``. A field with such a fault keeps its value. Raises ``ValidationFailed``.
    """
    found, known = ValidationErrors(), ValidationErrors()
    fields = _read(body, found)
    if look_for_cards:
        refuse_card_numbers(body, found)
    texts = found.to_dict()
    if not texts:
        return fields
    stored_body = _body_of(stored)
    _read(stored_body, known)
    refuse_card_numbers(stored_body, known)
    known_texts = known.to_dict()
    kept = {
        name: getattr(stored, name)
        for name in texts
        if texts[name] == known_texts.get(name) and _is_unchanged(name, stored, body, fields)
    }
    errors = ValidationErrors()
    for fault in found.faults(_NAMES):
        name = fault.path[0]
        if name not in kept:
            errors.add_fault(name, fault)
    errors.raise_if_any(_NAMES)
    return msgspec.structs.replace(fields, **kept)


def _is_unchanged(name: str, stored: Customer, body: CustomerBody, fields: CustomerFields) -> bool:
    """Whether a field that has the fault of the stored one has the same value, in the same country if that decides.

    The only fault of an absent value is that it is absent.
    """
    if name in (ZIP.name, STATE.name) and fields.country != stored.country:
        return False
    value = metadata_of(stored) if name == METADATA else getattr(stored, name)
    return value is None or getattr(body, name) == value


def validate_external(body: CustomerBody, external_id: str, *, look_for_cards: bool = True) -> CustomerFields:
    """The fields of the customer with the external id of the request's path; that of the body is absent or the same.

    Raises ``ValidationFailed`` with every error of every field.
    """
    errors, given = ValidationErrors(), body.external_id
    body.external_id = external_id
    customer = _read(body, errors)
    if look_for_cards:
        refuse_card_numbers(body, errors)
    if UNREADABLE in external_id:
        errors.add(EXTERNAL_ID.name, INVALID, EXTERNAL_ID)
    elif customer.external_id is None and not errors.has(EXTERNAL_ID.name):
        errors.add(EXTERNAL_ID.name, BLANK, EXTERNAL_ID)
    elif customer.external_id is not None and EXTERNAL_ID.read(given, errors) not in (None, customer.external_id):
        errors.add(EXTERNAL_ID.name, OTHER_EXTERNAL_ID, EXTERNAL_ID)
    errors.raise_if_any(_NAMES)
    return customer


def change_of(stored: StoredCustomer, fields: Customer | CustomerFields, now: int) -> CustomerChange:
    """The change of a stored customer to these fields at the moment ``now``."""
    customer = stored.customer
    names = [name for name in FIELD_NAMES if getattr(fields, name) != getattr(customer, name)]
    metadata = customer.metadata
    if fields.metadata != metadata and metadata_of(fields) != metadata_of(customer):
        names.append(METADATA)
        metadata = fields.metadata
    if not names:
        return CustomerChange(stored, stored, names)
    values = {name: getattr(fields, name) for name in FIELD_NAMES}
    changed = Customer(id=customer.id, **values, metadata=metadata)
    return CustomerChange(stored, StoredCustomer(changed, stored.version + 1, now), names)
