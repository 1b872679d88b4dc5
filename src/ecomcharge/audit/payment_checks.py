"""Checks of a payment against the record of its gateway. No I/O."""

from __future__ import annotations

from typing import Final

from ecomcharge.audit.model import (
    NOT_CHECKED,
    Finding,
    Record,
    money,
)
from ecomcharge.base.calendar import HOUR
from ecomcharge.gateways import base
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments.model import ABSENT, EXPIRED, REFUND_FAILED, REFUNDED, VOIDED, Payment

LOOK_UP_LATE: Final = 2 * HOUR  # then a look-up that is due is made by nobody


NO_RECORD: Final = "no record"


# What the gateway may say of a payment, by our status. A renewal that asked for 3-D Secure counts as failed, and a charge that
# was given up may have failed at the gateway later. The platform's gateway shows no refund on the payment.
GATEWAY_SAYS: Final = {
    base.SUCCESSFUL: frozenset((base.SUCCESSFUL,)),
    base.FAILED: frozenset((base.FAILED, base.INCOMPLETE, NO_RECORD)),
    base.ERROR: frozenset((base.ERROR, base.FAILED, base.INCOMPLETE, NO_RECORD)),
    ABSENT: frozenset((base.ERROR, base.FAILED, base.INCOMPLETE, NO_RECORD)),
    EXPIRED: frozenset((base.INCOMPLETE, base.FAILED, NO_RECORD)),
    REFUNDED: frozenset((base.SUCCESSFUL, REFUNDED)),
    REFUND_FAILED: frozenset((base.SUCCESSFUL,)),
    VOIDED: frozenset((base.SUCCESSFUL,)),
}


def check_record(payment: Payment, record: Record | str | None, now: int) -> Finding | None:
    """What our payment and the gateway's record of it disagree about."""
    if isinstance(record, str):
        return NOT_CHECKED, record
    allowed = GATEWAY_SAYS.get(payment.status)
    if allowed is None:  # its outcome is still looked for
        return None
    said = NO_RECORD if record is None else record.status
    check_at = payment.check_at
    if said == base.INCOMPLETE and payment.status == base.FAILED and payment.period == 0:
        return "gateway_status", f"we say failed, and the gateway waits for the buyer ({money(payment)})"
    kept_too = payment.gateway == SandboxGateway.name and payment.status == REFUNDED and said == base.SUCCESSFUL
    if said not in allowed or kept_too:
        if check_at is not None and now < check_at + LOOK_UP_LATE:  # it is looked up once more
            return None
        return "gateway_status", f"we say {payment.status}, the gateway says {said} ({money(payment)})"
    if record is not None and (record.amount, record.currency) != (payment.amount, payment.currency):
        return "gateway_amount", f"we say {money(payment)}, the gateway says {money(record)}"
    return None
