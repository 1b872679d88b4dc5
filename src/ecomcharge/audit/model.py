"""The results of an audit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ecomcharge.base.calendar import HOUR
from ecomcharge.events.model import KEPT_MILLISECONDS
from ecomcharge.gateways import base
from ecomcharge.payments.model import REFUND_FAILED, Payment

MONEY_TAKEN: Final = frozenset((base.SUCCESSFUL, REFUND_FAILED))  # statuses of payments that took money and did not return it

NOT_CHECKED: Final = "not_checked"


class Disagreement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two records that do not agree. The kind ``not_checked`` means that the check was not possible.

    ``kind`` is a stable name for scripts, ``message`` a sentence.
    """

    kind: str
    shop_id: int
    message: str
    subscription_id: str | None = None
    payment_id: str | None = None

    @property
    def is_checked(self) -> bool:
        return self.kind != NOT_CHECKED


@dataclass
class Totals:
    """Money that was taken and not returned, in minor units, by gateway and currency.

    ``ours`` is the sum of our payments, ``gateways`` the sum of the records of the gateways.
    """

    ours: Counter[tuple[str, str]] = field(default_factory=Counter)
    gateways: Counter[tuple[str, str]] = field(default_factory=Counter)
    subscriptions: int = 0
    payments: int = 0

    def add_ours(self, payment: Payment) -> None:
        if payment.status in MONEY_TAKEN:
            self.ours[payment.gateway, payment.currency] += payment.amount

    def add_gateways(self, gateway: str, record: Record) -> None:
        if record.status == base.SUCCESSFUL:
            self.gateways[gateway, record.currency] += record.amount

    def add(self, others: Totals) -> None:
        self.ours.update(others.ours)
        self.gateways.update(others.gateways)
        self.payments += others.payments


@dataclass(frozen=True)
class Record:
    """The record of a charge at its gateway. ``amount`` in minor units."""

    status: str
    amount: int
    currency: str


Finding = tuple[str, str]  # kind and sentence


@dataclass(frozen=True)
class Event:
    sequence: int
    type: str
    created_at: int


def kept_since(now: int) -> int:
    """Creation time from which events and webhooks must exist. Housekeeping may delete older ones during the audit."""
    return now - KEPT_MILLISECONDS + HOUR


def recorded_at(payment: Payment) -> int:
    return payment.created_at if payment.settled_at is None else payment.settled_at


def money(thing: Payment | Record) -> str:
    return f"{thing.amount} {thing.currency}"
