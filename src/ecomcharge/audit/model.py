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

KEEPS_MONEY: Final = frozenset((base.SUCCESSFUL, REFUND_FAILED))  # we say the money was taken and not returned


NOT_CHECKED: Final = "not_checked"


class Disagreement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two records that do not agree. With kind ``not_checked`` the gateway could not be asked, which says nothing.

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
    """Money that was taken and kept, in minor units, by gateway and currency: by our payments, and by the gateway's records."""

    ours: Counter[tuple[str, str]] = field(default_factory=Counter)
    gateways: Counter[tuple[str, str]] = field(default_factory=Counter)
    subscriptions: int = 0
    payments: int = 0

    def add_ours(self, payment: Payment) -> None:
        if payment.status in KEEPS_MONEY:
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
    """What a gateway says of a charge. ``amount`` in minor units."""

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
    """Events and webhooks from then on are there for certain: housekeeping deletes earlier ones while the audit runs."""
    return now - KEPT_MILLISECONDS + HOUR


def recorded_at(payment: Payment) -> int:
    return payment.created_at if payment.settled_at is None else payment.settled_at


def money(thing: Payment | Record) -> str:
    return f"{thing.amount} {thing.currency}"
