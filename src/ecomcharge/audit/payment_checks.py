"""Checks of a payment against the record of its gateway. No I/O."""

from __future__ import annotations

from typing import Final

from ecomcharge.audit.model import NOT_CHECKED, Finding, Record, money
from ecomcharge.base.calendar import HOUR
from ecomcharge.gateways import base
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments.model import ABSENT, EXPIRED, REFUND_FAILED, REFUNDED, VOIDED, Payment

LOOK_UP_OVERDUE: Final = 2 * HOUR  # a look-up that is late by more than this will not happen

NO_RECORD: Final = "no record"

# The statuses that a gateway may report, by our status. A renewal that asked for 3-D Secure counts as failed. A charge whose
# outcome we stopped to wait for may have failed at the gateway later. The platform does not report refunds with the payment.
ALLOWED_GATEWAY_STATUSES: Final = {
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
    """The disagreement between our payment and the record of the gateway.

    ``record`` is ``None`` if the gateway has no record, and a sentence if the gateway could not be asked.
    """
    if isinstance(record, str):
        return NOT_CHECKED, record
    allowed = ALLOWED_GATEWAY_STATUSES.get(payment.status)
    if allowed is None:  # the outcome is not known yet
        return None
    gateway_status = NO_RECORD if record is None else record.status
    check_at = payment.check_at
    if gateway_status == base.INCOMPLETE and payment.status == base.FAILED and payment.period == 0:
        return "gateway_status", f"we say failed, and the gateway waits for the buyer ({money(payment)})"
    is_sandbox = payment.gateway == SandboxGateway.name
    refund_is_missing = is_sandbox and payment.status == REFUNDED and gateway_status == base.SUCCESSFUL
    if gateway_status not in allowed or refund_is_missing:
        if check_at is not None and now < check_at + LOOK_UP_OVERDUE:  # the next look-up may correct it
            return None
        return "gateway_status", f"we say {payment.status}, the gateway says {gateway_status} ({money(payment)})"
    if record is not None and (record.amount, record.currency) != (payment.amount, payment.currency):
        return "gateway_amount", f"we say {money(payment)}, the gateway says {money(record)}"
    return None
