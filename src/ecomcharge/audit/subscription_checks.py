"""Checks of a subscription against its payments, events and webhooks. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

import msgspec

from ecomcharge.audit.model import Event, Finding, kept_since, recorded_at
from ecomcharge.audit.payment_checks import ALLOWED_GATEWAY_STATUSES
from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.base.ids import moment_of
from ecomcharge.gateways import base
from ecomcharge.payments import model as payments_model
from ecomcharge.payments.model import PENDING, REFUND_FAILED, REFUNDED, REFUNDING, VOIDED, Payment
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import CREATED_EVENT, REFUND_FAILED_EVENT, REFUNDED_EVENT, RENEWED_EVENT
from ecomcharge.subscriptions.model import Subscription

# The maximum age of a payment without a final outcome. A buyer has a day for 3-D Secure; the others are looked up hourly.
MAXIMUM_AGE: Final = {
    PENDING: 2 * HOUR,
    base.UNKNOWN: 2 * HOUR,
    REFUNDING: 2 * HOUR,
    base.INCOMPLETE: 25 * HOUR,
}

_PAID_EVENTS: Final = frozenset((CREATED_EVENT, RENEWED_EVENT))
_END_EVENTS: Final = frozenset((lifecycle.CANCELED_EVENT, lifecycle.FAILED_EVENT, lifecycle.EXPIRED_EVENT))


def check_billing_state(subscription: Subscription, payments: Sequence[Payment], shop_is_closed: bool) -> list[Finding]:
    billing_state = subscription.billing_state
    found: list[Finding] = []
    paid = [payment for payment in payments if payment.status == base.SUCCESSFUL]
    if billing_state.paid_billing_cycles != len(paid):
        found.append(
            (
                "paid_cycles",
                f"paid_billing_cycles is {billing_state.paid_billing_cycles}, and {len(paid)} payments are successful",
            )
        )
    for period, times in Counter(payment.period for payment in paid).items():
        if times > 1:
            found.append(("paid_twice", f"period {period} has {times} successful payments"))
    cycles = None if subscription.plan.infinite else subscription.plan.billing_cycles
    if cycles is not None and len(paid) > max(1, cycles):
        found.append(("too_many_cycles", f"{len(paid)} payments are successful, and the plan has {cycles} billing cycles"))
    if billing_state.state not in lifecycle.OVER and billing_state.due_at is None and not shop_is_closed:
        found.append(("forgotten", f"state is {billing_state.state}, and nothing will ever become due"))
    return found


def check_payments(subscription: Subscription, payments: Sequence[Payment], now: int, shop_is_closed: bool) -> list[Finding]:
    found: list[Finding] = []
    for payment in payments:
        maximum_age = MAXIMUM_AGE.get(payment.status)
        if maximum_age is None:
            if payment.status not in ALLOWED_GATEWAY_STATUSES:
                found.append(("unknown_status", f"payment {payment.id} has the unknown status {payment.status}"))
            continue
        check_at = payment.check_at
        if subscription.billing_state.due_at is None and check_at is None and not shop_is_closed:
            message = f"payment {payment.id} is {payment.status}, and no look-up of its outcome is scheduled"
            found.append(("never_looked_up", message))
        if now - payment.created_at > maximum_age and not shop_is_closed:
            message = f"payment {payment.id} is {payment.status} since {iso(payment.created_at)}"
            found.append(("unsettled_too_long", message))
    return [*found, *check_last_transaction(subscription, payments)]


def check_last_transaction(subscription: Subscription, payments: Sequence[Payment]) -> list[Finding]:
    transaction = msgspec.json.decode(subscription.last_transaction)
    recorded = [payment for payment in payments if payment.status != PENDING]
    if not recorded and not transaction:
        return []
    if not recorded:
        return [("last_transaction", f"last_transaction is {transaction['uid']}, and no payment is recorded")]
    latest = max(recorded_at(payment) for payment in recorded)
    last = [payment for payment in recorded if recorded_at(payment) == latest] + [recorded[-1]]
    expected = [payments_model.to_json(payment) for payment in last]
    if any((transaction.get("uid"), transaction.get("status")) == (one["uid"], one["status"]) for one in expected):
        return []
    actual = f"{transaction.get('uid')} {transaction.get('status')}" if transaction else "empty"
    last_payment = f"{expected[0]['uid']} {expected[0]['status']}"
    return [("last_transaction", f"last_transaction is {actual}, and the last payment {last_payment}")]


def check_events(subscription: Subscription, payments: Sequence[Payment], events: Sequence[Event], now: int) -> list[Finding]:
    found: list[Finding] = []
    sequences = [event.sequence for event in events]
    oldest = kept_since(now)
    # Events older than ``oldest`` may be deleted.
    has_all_events = subscription.created_at >= oldest and moment_of(subscription.id) >= oldest
    expected_first = 1 if has_all_events else sequences[0] if sequences else subscription.sequence + 1
    neighbours = pairwise([expected_first - 1, *sequences, subscription.sequence + 1])
    after_gap = [number for before, number in neighbours if number != before + 1]
    if after_gap:
        found.append(("event_missing", f"events end at {subscription.sequence}, and one before {after_gap[0]} is missing"))
    paid_at = [recorded_at(payment) for payment in payments if payment.status == base.SUCCESSFUL]
    paid = sum(has_all_events or moment >= oldest for moment in paid_at)
    paid_events = sum(event.type in _PAID_EVENTS and (has_all_events or event.created_at >= oldest) for event in events)
    if paid != paid_events:
        found.append(("paid_events", f"{paid_events} events say created or renewed, and {paid} payments are successful"))
    if has_all_events and sum(event.type == CREATED_EVENT for event in events) > 1:
        found.append(("paid_events", "more than one event says created"))
    if has_all_events:
        found += check_refund_events(payments, events)
    return [*found, *check_end_events(subscription, [event.type for event in events], has_all_events)]


def check_refund_events(payments: Sequence[Payment], events: Sequence[Event]) -> list[Finding]:
    statuses, types = Counter(payment.status for payment in payments), Counter(event.type for event in events)
    found: list[Finding] = []
    if not statuses[REFUNDED] <= types[REFUNDED_EVENT] <= statuses[REFUNDED] + statuses[VOIDED]:
        found.append(("refund_events", f"{types[REFUNDED_EVENT]} events say refunded, and {statuses[REFUNDED]} payments are"))
    # A gateway may make a refund that it refused before.
    if not statuses[REFUND_FAILED] <= types[REFUND_FAILED_EVENT] <= statuses[REFUND_FAILED] + statuses[REFUNDED]:
        found.append(
            (
                "refund_events",
                f"{types[REFUND_FAILED_EVENT]} events say refund_failed, and {statuses[REFUND_FAILED]} payments are",
            )
        )
    return found


def check_end_events(subscription: Subscription, types: Sequence[str], has_all_events: bool) -> list[Finding]:
    """A subscription ends once, unless a late successful payment made it active again."""
    is_over = subscription.billing_state.state in lifecycle.OVER
    kinds = [("end" if type in _END_EVENTS else "paid") for type in types if type in _END_EVENTS | _PAID_EVENTS]
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    if any(kind == "end" and count > 1 for kind, count in runs):
        return [("end_events", "two events say that it ended, and nothing was paid between them")]
    if is_over and has_all_events and "end" not in kinds:
        return [("end_events", f"state is {subscription.billing_state.state}, and no event says that it ended")]
    if not is_over and kinds and kinds[-1] == "end":
        return [("end_events", f"state is {subscription.billing_state.state}, and the last event says that it ended")]
    return []
