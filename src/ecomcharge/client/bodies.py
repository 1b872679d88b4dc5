"""The bodies of requests. ``None`` means absent, except in ``CustomerPatch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Required, TypedDict

import msgspec
from msgspec import UNSET, UnsetType


class NewCustomer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a new customer."""

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
    metadata: Mapping[str, str] | None = None


class CustomerPatch(msgspec.Struct, frozen=True):
    """A JSON merge patch (RFC 7396): fields that are ``UNSET`` stay, and ``None`` clears a field or a key of ``metadata``."""

    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    address: str | UnsetType | None = UNSET
    country: str | UnsetType | None = UNSET
    city: str | UnsetType | None = UNSET
    zip: str | UnsetType | None = UNSET
    state: str | UnsetType | None = UNSET
    phone: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    ip: str | UnsetType | None = UNSET
    external_id: str | UnsetType | None = UNSET
    metadata: Mapping[str, str | None] | UnsetType | None = UNSET


class _Fields(TypedDict, total=False):
    """The fields of a customer that every call accepts."""

    first_name: str | None
    last_name: str | None
    address: str | None
    country: str | None
    city: str | None
    zip: str | None
    state: str | None
    phone: str | None


class WholeCustomerFields(_Fields, total=False):
    """The fields of a whole customer, without ``external_id``."""

    email: Required[str]
    ip: Required[str]
    metadata: Mapping[str, str] | None


class NewCustomerFields(WholeCustomerFields, total=False):
    """The fields of a whole customer."""

    external_id: str | None


class CustomerChanges(_Fields, total=False):
    """The fields that a call changes."""

    email: str | None
    ip: str | None
    external_id: str | None
    metadata: Mapping[str, str | None] | None


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """The regular charge of a new plan: ``amount`` in minor units, for each ``interval`` of ``interval_unit``."""

    amount: int
    interval: int
    interval_unit: str
    visible_fields: list[str] | None = None


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first charge of a new plan. An ``amount`` of 0 is a free trial."""

    amount: int
    interval: int
    interval_unit: str
    as_first_payment: bool | None = None


class NewPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a new plan."""

    title: str
    currency: str
    plan: Price
    trial: Trial | None = None
    language: str | None = None
    infinite: bool | None = None
    billing_cycles: int | None = None
    number_payment_attempts: int | None = None
    prevent_payments_at_night: bool | None = None
    test: bool | None = None


class NewPlanFields(TypedDict, total=False):
    """The fields of ``NewPlan``."""

    title: Required[str]
    currency: Required[str]
    plan: Required[Price]
    trial: Trial | None
    language: str | None
    infinite: bool | None
    billing_cycles: int | None
    number_payment_attempts: int | None
    prevent_payments_at_night: bool | None
    test: bool | None


class NewCard(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A card to charge. ``repr`` hides its number and its code."""

    number: str
    exp_month: int
    exp_year: int
    holder: str | None = None
    verification_value: str | None = None

    def __repr__(self) -> str:
        return f"NewCard(number='...{self.number[-4:]}', exp_month={self.exp_month}, exp_year={self.exp_year})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("number", f"...{self.number[-4:]}"), ("exp_month", self.exp_month), ("exp_year", self.exp_year)]


class ById(msgspec.Struct, frozen=True):
    """An object that exists."""

    id: str


class ByToken(msgspec.Struct, frozen=True):
    """A card that was charged before."""

    token: str


class NewSubscription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of ``POST /subscriptions``."""

    plan: ById | NewPlan
    customer: ById | NewCustomer | None = None
    card: ByToken | NewCard | None = None
    tracking_id: str | None = None
    device_id: str | None = None
    return_url: str | None = None
    notification_url: str | None = None
    additional_data: Mapping[str, Any] | None = None
    dynamic_billing_descriptor: str | None = None
    receipt_text: list[Any] | None = None
    avs_cvc_verification: Any = None
    settings: Mapping[str, Any] | None = None
    language: str | None = None


class SubscriptionOptions(TypedDict, total=False):
    """The optional fields of a new subscription. ``additional_data`` is returned unchanged."""

    tracking_id: str | None
    device_id: str | None
    return_url: str | None
    notification_url: str | None
    additional_data: Mapping[str, Any] | None
    dynamic_billing_descriptor: str | None
    receipt_text: list[Any] | None
    avs_cvc_verification: Any
    settings: Mapping[str, Any] | None
    language: str | None


class CancelSubscription(msgspec.Struct, frozen=True):
    """The body of ``POST /subscriptions/:id/cancel``."""

    cancel_reason: str
