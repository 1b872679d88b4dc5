"""Checks of a subscription against its payments, events and webhooks. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

import msgspec

from ecomcharge.audit.model import (
    Event,
    Finding,
    kept_since,
    recorded_at,
)
from ecomcharge.audit.payment_checks import GATEWAY_SAYS
from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.base.ids import moment_of
from ecomcharge.gateways import base
from ecomcharge.payments import model as payments_model
from ecomcharge.payments.model import PENDING, REFUND_FAILED, REFUNDED, REFUNDING, VOIDED, Payment
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import CREATED_EVENT, REFUND_FAILED_EVENT, REFUNDED_EVENT, RENEWED_EVENT
from ecomcharge.subscriptions.model import Subscription

# How old a payment may become without a final outcome. A buyer has a day for 3-D Secure; the rest are looked up hourly.
OLDEST_UNSETTLED: Final = {
    PENDING: 2 * HOUR,
    base.UNKNOWN: 2 * HOUR,
    REFUNDING: 2 * HOUR,
    base.INCOMPLETE: 25 * HOUR,
}


_PAID_EVENTS: Final = frozenset((CREATED_EVENT, RENEWED_EVENT))


_END_EVENTS: Final = frozenset((lifecycle.CANCELED_EVENT, lifecycle.FAILED_EVENT, lifecycle.EXPIRED_EVENT))


def check_billing_state(each: Subscription, payments: Sequence[Payment], parked: bool) -> list[Finding]:
    billing_state = each.billing_state
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
    cycles = None if each.plan.infinite else each.plan.billing_cycles
    if cycles is not None and len(paid) > max(1, cycles):
        found.append(("too_many_cycles", f"{len(paid)} payments are successful, and the plan has {cycles} billing cycles"))
    if billing_state.state not in lifecycle.OVER and billing_state.due_at is None and not parked:
        found.append(("forgotten", f"state is {billing_state.state}, and nothing will ever become due"))
    return found


def check_payments(each: Subscription, payments: Sequence[Payment], now: int, parked: bool) -> list[Finding]:
    found: list[Finding] = []
    for payment in payments:
        oldest = OLDEST_UNSETTLED.get(payment.status)
        if oldest is None:
            if payment.status not in GATEWAY_SAYS:
                found.append(("unknown_status", f"payment {payment.id} has the unknown status {payment.status}"))
            continue
        check_at = payment.check_at
        if each.billing_state.due_at is None and check_at is None and not parked:
            found.append(("never_looked_up", f"payment {payment.id} is {payment.status}, and nobody will look for its outcome"))
        if now - payment.created_at > oldest and not parked:
            age = f"since {iso(payment.created_at)}"
            found.append(("unsettled_too_long", f"payment {payment.id} is {payment.status} {age}"))
    return [*found, *check_last_transaction(each, payments)]


def check_last_transaction(each: Subscription, payments: Sequence[Payment]) -> list[Finding]:
    told = msgspec.json.decode(each.last_transaction)
    recorded = [payment for payment in payments if payment.status != PENDING]
    if not recorded:
        return [("last_transaction", f"last_transaction is {told['uid']}, and no payment is recorded")] if told else []
    latest = max(recorded_at(payment) for payment in recorded)
    last = [payment for payment in recorded if recorded_at(payment) == latest] + [recorded[-1]]
    expected = [payments_model.to_json(payment) for payment in last]
    if any((told.get("uid"), told.get("status")) == (one["uid"], one["status"]) for one in expected):
        return []
    was = f"{told.get('uid')} {told.get('status')}" if told else "empty"
    return [("last_transaction", f"last_transaction is {was}, and the last payment {expected[0]['uid']} {expected[0]['status']}")]


def check_events(each: Subscription, payments: Sequence[Payment], events: Sequence[Event], now: int) -> list[Finding]:
    found: list[Finding] = []
    sequences = [event.sequence for event in events]
    oldest = kept_since(now)
    whole = each.created_at >= oldest and moment_of(each.id) >= oldest  # none of its events was deleted for its age
    expected_first = 1 if whole else sequences[0] if sequences else each.sequence + 1
    missing = [number for before, number in pairwise([expected_first - 1, *sequences, each.sequence + 1]) if number != before + 1]
    if missing:
        found.append(("event_missing", f"events end at {each.sequence}, and one before {missing[0]} is missing"))
    paid_at = [recorded_at(payment) for payment in payments if payment.status == base.SUCCESSFUL]
    paid = sum(whole or moment >= oldest for moment in paid_at)
    told = sum(event.type in _PAID_EVENTS and (whole or event.created_at >= oldest) for event in events)
    if paid != told:
        found.append(("paid_events", f"{told} events say created or renewed, and {paid} payments are successful"))
    if whole and sum(event.type == CREATED_EVENT for event in events) > 1:
        found.append(("paid_events", "more than one event says created"))
    if whole:
        found += check_refund_events(payments, events)
    return [*found, *check_end_events(each, [event.type for event in events], whole)]


def check_refund_events(payments: Sequence[Payment], events: Sequence[Event]) -> list[Finding]:
    statuses, types = Counter(payment.status for payment in payments), Counter(event.type for event in events)
    found: list[Finding] = []
    if not statuses[REFUNDED] <= types[REFUNDED_EVENT] <= statuses[REFUNDED] + statuses[VOIDED]:
        found.append(("refund_events", f"{types[REFUNDED_EVENT]} events say refunded, and {statuses[REFUNDED]} payments are"))
    # A gateway may make a refund that it had refused.
    if not statuses[REFUND_FAILED] <= types[REFUND_FAILED_EVENT] <= statuses[REFUND_FAILED] + statuses[REFUNDED]:
        found.append(
            (
                "refund_events",
                f"{types[REFUND_FAILED_EVENT]} events say refund_failed, and {statuses[REFUND_FAILED]} payments are",
            )
        )
    return found


def check_end_events(each: Subscription, types: Sequence[str], whole: bool) -> list[Finding]:
    """A subscription ends once, unless a success that came late made it active again."""
    over = each.billing_state.state in lifecycle.OVER
    kinds = [("end" if type in _END_EVENTS else "paid") for type in types if type in _END_EVENTS | _PAID_EVENTS]
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    if any(kind == "end" and count > 1 for kind, count in runs):
        return [("end_events", "two events say that it ended, and nothing was paid between them")]
    if over and whole and "end" not in kinds:
        return [("end_events", f"state is {each.billing_state.state}, and no event says that it ended")]
    if not over and kinds and kinds[-1] == "end":
        return [("end_events", f"state is {each.billing_state.state}, and the last event says that it ended")]
    return []
