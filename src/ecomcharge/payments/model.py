"""A payment: one charge of a subscription, written down before it is sent and again when its outcome is known."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ecomcharge.gateways import base
from ecomcharge.subscriptions.schedule import iso

PENDING: Final = "pending"  # written down; perhaps not sent yet
ABSENT: Final = "absent"  # it never reached the gateway: we died before
EXPIRED: Final = "expired"  # the buyer did not come back from 3-D Secure

# Of one period at most one payment has one of these, as the index payments_once sees to.
LIVE: Final = (PENDING, base.UNKNOWN, base.INCOMPLETE)


class Payment(msgspec.Struct, frozen=True):
    """``amount`` in minor units, times in UTC milliseconds. ``id`` is ours and told to the gateway, ``uid`` the gateway's."""

    id: str
    subscription_id: str
    period: int
    attempt: int
    amount: int
    currency: str
    gateway: str
    status: str
    created_at: int
    uid: str | None = None
    message: str | None = None
    redirect_url: str | None = None
    settled_at: int | None = None


def shown(payment: Payment) -> dict[str, Any]:
    """``last_transaction`` of a subscription, keys in the documented order [P]."""
    told = {
        "uid": payment.uid or payment.id,
        "status": payment.status if payment.status in (base.SUCCESSFUL, base.FAILED, base.ERROR) else base.INCOMPLETE,
        "message": payment.message,
        "created_at": iso(payment.created_at),
    }
    if payment.status == base.INCOMPLETE and payment.redirect_url:
        told["redirect_url"] = payment.redirect_url
    return told
