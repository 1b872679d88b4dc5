"""The objects that the API returns. Times are aware ``datetime`` values, amounts are minor units.

Unknown keys are ignored, so that a newer server can add some.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Customer(msgspec.Struct, frozen=True, eq=False):
    """A customer. ``etag`` identifies its version for ``if_match``; ``changed_at`` is the time of the last change.

    Both are ``None`` in lists and in events. Two customers are equal if their other fields are equal.
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
    metadata: dict[str, str] = {}
    etag: str | None = None
    changed_at: datetime | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Customer) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self.id)

    def _fields(self) -> tuple[object, ...]:
        return msgspec.structs.astuple(msgspec.structs.replace(self, etag=None, changed_at=None))


class PlanPrice(msgspec.Struct, frozen=True):
    """The regular charge of a plan."""

    amount: int
    interval: int
    interval_unit: str
    visible_fields: list[str] = []


class PlanTrial(msgspec.Struct, frozen=True):
    """The first charge of a plan. Without a trial, ``amount`` and ``interval`` are ``None``."""

    amount: int | None = None
    interval: int | None = None
    interval_unit: str | None = None
    as_first_payment: bool | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan. ``amount`` is the first charge: that of the trial if there is one."""

    id: str
    title: str
    description: str | None = None
    amount: int | None = None
    currency: str
    language: str | None = None
    infinite: bool = True
    billing_cycles: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    plan: PlanPrice
    trial: PlanTrial = PlanTrial()
    number_payment_attempts: int | None = None
    prevent_payments_at_night: bool = False
    test: bool = False
    pay_url: str | None = None
    confirm_url: str | None = None


class Card(msgspec.Struct, frozen=True):
    """The card of a subscription. Every field is ``None`` until the card is known. ``token`` charges it again."""

    holder: str | None = None
    stamp: str | None = None
    brand: str | None = None
    last_4: str | None = None
    first_1: str | None = None
    bin: str | None = None
    issuer_country: str | None = None
    issuer_name: str | None = None
    product: str | None = None
    token: str | None = None
    token_provider: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    sub_brand: str | None = None


class Transaction(msgspec.Struct, frozen=True):
    """A charge."""

    uid: str | None = None
    status: str | None = None
    message: str | None = None
    created_at: datetime | None = None
    redirect_url: str | None = None


class CustomerReference(msgspec.Struct, frozen=True):
    """The customer of a subscription. ``id`` is ``None`` until there is one."""

    id: str | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription.

    In the state ``redirecting``, send the buyer to ``redirect_url``. ``last_transaction`` is ``None`` or without fields until
    there is a charge. ``next_attempt_at`` is when a failed charge is repeated;
    only ``get_subscription`` knows it.
    """

    id: str
    state: str
    tracking_id: str | None = None
    device_id: str | None = None
    created_at: datetime | None = None
    renew_at: datetime | None = None
    active_to: datetime | None = None
    card: Card = Card()
    customer: CustomerReference = CustomerReference()
    paid_billing_cycles: int = 0
    number_failed_payment_attempts: int = 0
    additional_data: dict[str, Any] = {}
    cancel_reason: str | None = None
    cancelled_at: datetime | None = None
    plan: Plan
    last_transaction: Transaction | None = None
    redirect_url: str | None = None
    token: str | None = None
    next_attempt_at: datetime | None = None


class CheckoutOrder(msgspec.Struct, frozen=True):
    """What the buyer would have paid."""

    amount: int
    currency: str
    description: str | None = None
    tracking_id: str | None = None


class ExpiredCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """A payment page that expired without a payment. ``token`` is that of its subscription."""

    token: str | None
    shop_id: int
    message: str | None = None
    order: CheckoutOrder
    settings: dict[str, Any] = {}
    customer: dict[str, Any] = {}
    test: bool = False


class Event(msgspec.Struct, frozen=True):
    """An entry of ``GET /events``. ``sequence`` counts the events of one object from 1."""

    id: str
    type: str
    object_id: str
    sequence: int
    created_at: datetime
    data: dict[str, Any]

    @property
    def subscription(self) -> Subscription | None:
        """The subscription at the time of the event; ``None`` for an event of another object."""
        return msgspec.convert(self.data, Subscription) if self.object_id.startswith("sbs_") else None

    @property
    def changed(self) -> list[str]:
        """The names of the fields that a ``customer.updated`` changed; empty for another event."""
        return list(self.data.get("changed", []))


class Clock(msgspec.Struct, frozen=True):
    """The sandbox clock."""

    now: datetime
    frozen: bool


class ClockMove(msgspec.Struct, frozen=True, kw_only=True):
    """A move of the sandbox clock. The times are ``None`` while it waits for another move.

    ``done``: the move has ended. ``error``: why it ended before ``to_time``.
    """

    id: str
    from_time: datetime | None = msgspec.field(name="from")
    to_time: datetime | None = msgspec.field(name="to")
    now: datetime | None
    done: bool
    error: str | None
