"""A payment: one charge of a subscription, recorded before it is sent and again when its outcome is known."""

from __future__ import annotations

from typing import Annotated, Final, NotRequired, TypedDict, cast

import msgspec
from msgspec import Meta

from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.base.wire_types import Moment, WebAddress
from ecomcharge.gateways import base

PENDING: Final = "pending"  # recorded; perhaps not sent yet
ABSENT: Final = "absent"  # it never reached the gateway: the process died before
EXPIRED: Final = "expired"  # the buyer did not finish 3-D Secure

# The gateway charged after the subscription ended, or after another payment paid the period.
REFUNDING: Final = "refunding"  # it must be refunded
REFUNDED: Final = "refunded"  # the money was returned
REFUND_FAILED: Final = "refund_failed"  # the gateway refused every refund: the operator must refund by hand
VOIDED: Final = "voided"  # the verification of a card (amount 0), which moved no money

# At most one payment of a period has one of these statuses: the index payments_once enforces it.
LIVE: Final = (PENDING, base.UNKNOWN, base.INCOMPLETE)
# Ended without success as far as known. A success that becomes known later is still recorded.
UNSUCCESSFUL: Final = (base.FAILED, base.ERROR, EXPIRED, ABSENT)

RECHECK_AFTER: Final = 24 * HOUR  # a payment that ended without success is looked up once more

REFUND_MESSAGES: Final = {
    REFUNDING: "Payment is not needed any more and is being refunded",
    REFUNDED: "Payment was not needed any more and was refunded",
    REFUND_FAILED: "Payment is not needed any more and could not be refunded",
}


class Payment(msgspec.Struct, frozen=True):
    """``amount`` in minor units, times in UTC milliseconds. ``id`` is ours and known to the gateway; ``uid`` is the gateway's.

    ``check_at`` is when the ended payment is looked up or refunded next; ``check_attempts`` counts the attempts without a
    result.
    """

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
    check_at: int | None = None
    check_attempts: int = 0
    gateway_account: str | None = None  # None: the shop's first one; the sandbox has none


_STATUSES: Final = [base.SUCCESSFUL, base.FAILED, base.ERROR, base.INCOMPLETE]


class TransactionObject(TypedDict):
    """The last charge."""

    uid: Annotated[str, Meta(description="The gateway's id of it.")]
    status: Annotated[str, Meta(description="How it ended, or `incomplete`.", extra_json_schema={"enum": _STATUSES})]
    message: Annotated[str, Meta(description="The same in words.")]
    created_at: Annotated[Moment, Meta(description="When it began. UTC.")]
    redirect_url: NotRequired[Annotated[WebAddress, Meta(description="The 3-D Secure step, while the buyer has to pass it.")]]


def to_json(payment: Payment) -> TransactionObject:
    """``last_transaction`` of a subscription, keys in the documented order [P].

    A refunded payment stays ``successful``, as on the platform; its message reports the refund [D].
    """
    transaction: TransactionObject = {
        "uid": payment.uid or payment.id,
        "status": _shown_status(payment.status),
        "message": cast(str, REFUND_MESSAGES.get(payment.status, payment.message)),  # one that ended has a message
        "created_at": iso(payment.created_at),
    }
    if payment.status == base.INCOMPLETE and payment.redirect_url:
        transaction["redirect_url"] = payment.redirect_url
    return transaction


def _shown_status(status: str) -> str:
    if status in (REFUNDING, REFUNDED, REFUND_FAILED, VOIDED):
        return base.SUCCESSFUL
    return status if status in (base.SUCCESSFUL, base.FAILED, base.ERROR) else base.INCOMPLETE
