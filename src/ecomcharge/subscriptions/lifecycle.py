"""The state machine of a subscription: each function is one transition. They use values only and do no I/O.

A ``BillingState`` is the part of a subscription that changes, ``Terms`` are the terms of its plan.
Sources of the rules: the platform's documentation of subscriptions [P], captured traffic [C], our choice [D].
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from ecomcharge.base import calendar
from ecomcharge.plans.terms import Terms

# The states of the platform [P]. ``tokenizing`` and ``notified`` exist there; here a subscription is never in them.
PENDING: Final = "pending"  # the first charge, by token, waits for the morning [D]
REDIRECTING: Final = "redirecting"
TRIAL_PROCESSING: Final = "trial_processing"
PROCESSING: Final = "processing"
TRIAL_GET_STATUS: Final = "trial_get_status"
GETTING_STATUS: Final = "getting_status"
TRIAL: Final = "trial"
ACTIVE: Final = "active"
FAILED_ATTEMPT: Final = "failed_attempt"
RESCUING: Final = "rescuing"
FAILED: Final = "failed"
ERROR: Final = "error"
EXPIRED: Final = "expired"
CANCELED: Final = "canceled"

STATES: Final = (
    *(PENDING, "tokenizing", REDIRECTING, TRIAL_PROCESSING, TRIAL, PROCESSING, ACTIVE, FAILED_ATTEMPT, RESCUING),
    *(FAILED, ERROR, EXPIRED, CANCELED, TRIAL_GET_STATUS, GETTING_STATUS, "notified"),
)
OVER: Final = frozenset((FAILED, ERROR, EXPIRED, CANCELED))
TRIED_AGAIN: Final = frozenset((FAILED_ATTEMPT, RESCUING))
UNDER_WAY: Final = frozenset((TRIAL_PROCESSING, PROCESSING, TRIAL_GET_STATUS, GETTING_STATUS))

CREATED_EVENT: Final = "created.subscription"
RENEWED_EVENT: Final = "renewed.subscription"
CANCELED_EVENT: Final = "canceled.subscription"
FAILED_EVENT: Final = "failed.subscription"
EXPIRED_EVENT: Final = "expired.subscription"
REFUNDED_EVENT: Final = "refunded.subscription"  # a payment that came too late was refunded [D]
REFUND_FAILED_EVENT: Final = "refund_failed.subscription"  # the gateway refuses the refund [D]

TOKEN_LIVES: Final = 24 * calendar.HOUR  # [P]


class BillingState(msgspec.Struct, frozen=True):
    """The billing state of a subscription. ``period`` is the next period to be paid: 0 is the first charge.

    Periods count from ``billing_cycle_anchor``, the start of ``anchor_period``. ``anchor_day`` is the day of the month if the
    anchor is the last day of a shorter month. The previous release counts from ``anchored_at``, the start of the first period
    at the plan's own price; it never changes.
    """

    state: str
    anchored_at: int | None = None
    period: int = 0
    renew_at: int | None = None
    active_to: int | None = None
    paid_billing_cycles: int = 0
    number_failed_payment_attempts: int = 0
    cancel_reason: str | None = None
    cancelled_at: int | None = None
    due_at: int | None = None
    billing_cycle_anchor: int | None = None
    anchor_period: int | None = None
    anchor_day: int | None = None


class Transition(NamedTuple):
    """The new billing state, the event for the merchant, and the number of periods that were skipped because no worker ran."""

    billing_state: BillingState
    event: str | None = None
    skipped: int = 0


def amount_due(billing_state: BillingState, terms: Terms) -> int:
    """The amount of the next charge in minor units; 0 verifies the card."""
    return terms.trial.amount if terms.trial and billing_state.period == 0 else terms.amount


def redirected(now: int) -> BillingState:
    """A new subscription that waits for its buyer, for a day [P]."""
    return BillingState(REDIRECTING, due_at=now + TOKEN_LIVES)


def first_charge(terms: Terms, now: int, *, by_token: bool) -> BillingState:
    """A new subscription that is charged at once. With a token, a plan without charges at night waits for 08:00 [P][D].

    A card with its number is charged at once at every hour, because number and code are not stored.
    """
    morning = charge_time(terms, now)
    if by_token and morning > now and (terms.trial is None or terms.trial.amount):
        return BillingState(PENDING, due_at=morning)
    return BillingState(PROCESSING)


def charge_time(terms: Terms, now: int) -> int:
    """The earliest time of a due charge: now, or the next 08:00 if the plan forbids charges at night [P]."""
    return calendar.by_day_from(now, terms.zone) if terms.by_day else now


def waits_for_buyer(billing_state: BillingState, now: int) -> bool:
    """Whether the subscription waits for its buyer. After its day it does not, even if the expiry is not written yet [P]."""
    return billing_state.state == REDIRECTING and (billing_state.due_at is None or billing_state.due_at > now)


def is_wanted(billing_state: BillingState, period: int) -> bool:
    """Whether the subscription waits for a successful payment of this period. Otherwise a success is refunded [D]."""
    return billing_state.state not in OVER and billing_state.period == period


def charging(billing_state: BillingState, terms: Terms, look_again_at: int) -> BillingState:
    """A charge starts. If no process records its outcome, it is looked up at ``look_again_at``."""
    in_trial = terms.trial is not None and billing_state.period == 0
    return replace(billing_state, state=TRIAL_PROCESSING if in_trial else PROCESSING, due_at=look_again_at)


def unanswered(billing_state: BillingState, terms: Terms, look_again_at: int) -> BillingState:
    """The outcome of the charge is unknown: look it up at ``look_again_at``, and charge nothing before [D]."""
    in_trial = terms.trial is not None and billing_state.period == 0
    state = TRIAL_GET_STATUS if in_trial else GETTING_STATUS
    return replace(billing_state, state=_unless_canceled(billing_state, state), due_at=look_again_at)


def waiting(billing_state: BillingState, look_again_at: int) -> BillingState:
    """The same state with a later due date."""
    return replace(billing_state, due_at=look_again_at)


def at_rest(billing_state: BillingState) -> BillingState:
    """The same state without a due date."""
    return replace(billing_state, due_at=None)


def challenged(billing_state: BillingState, now: int) -> BillingState:
    """The card requires 3-D Secure: the buyer has a day for it, as for the payment page [P][D].

    A canceled subscription stays canceled. Its payment is looked up hourly, because the buyer may still pass the step.
    """
    if billing_state.state == CANCELED:
        return replace(billing_state, due_at=now + calendar.HOUR)
    return replace(billing_state, state=REDIRECTING, due_at=now + TOKEN_LIVES)


def forgotten(billing_state: BillingState, terms: Terms, now: int, *, has_token: bool) -> Transition:
    """The charge was never sent: with a token it starts again, and the attempt does not count [D].

    Without a token it fails, because the card was known only to the request that sent it.
    """
    if billing_state.state == CANCELED or not has_token:
        return errored(billing_state, terms, now)
    return Transition(replace(billing_state, state=ACTIVE if billing_state.period else PENDING, due_at=now))


def succeeded(billing_state: BillingState, terms: Terms, now: int) -> Transition:
    """The charge succeeded. Renewals keep their anchor even after a late charge [C]; missed periods are not charged [D]."""
    if billing_state.period == 0:
        paid = replace(_anchored(billing_state, terms, now), number_failed_payment_attempts=0)
        return Transition(_paid_until(paid, terms, 1, TRIAL if terms.trial else ACTIVE), CREATED_EVENT)
    billing_state = _with_kept_date(billing_state, terms)
    following = _first_period_after(billing_state, terms, now)
    paid = replace(billing_state, number_failed_payment_attempts=0)
    return Transition(_paid_until(paid, terms, following, ACTIVE), RENEWED_EVENT, following - billing_state.period - 1)


def declined(billing_state: BillingState, terms: Terms, now: int) -> Transition:
    """The bank declined. The next attempt is the following day at 03:00, or at 08:00 by day, while attempts are left [P]."""
    if billing_state.period == 0:
        return _failed_at_once(billing_state)
    return _tried(billing_state, terms, FAILED_ATTEMPT, calendar.following_day(now, terms.zone, by_day=terms.by_day), FAILED)


def errored(billing_state: BillingState, terms: Terms, now: int) -> Transition:
    """The gateway failed. The next attempt is at the start of the next hour, by day if required, while attempts are left [P]."""
    if billing_state.period == 0:
        return _failed_at_once(billing_state)
    return _tried(billing_state, terms, RESCUING, calendar.following_hour(now, terms.zone, by_day=terms.by_day), ERROR)


def expired(billing_state: BillingState) -> Transition:
    """The buyer did not pay in time [P]."""
    if billing_state.state == CANCELED:
        return Transition(at_rest(billing_state))
    return Transition(replace(billing_state, state=EXPIRED, due_at=None), EXPIRED_EVENT)


def cycles_are_over(billing_state: BillingState, terms: Terms) -> bool:
    return terms.cycles is not None and billing_state.paid_billing_cycles >= terms.cycles


def ended(billing_state: BillingState, now: int) -> Transition:
    """The last cycle of a finite plan is over [C]."""
    over = replace(billing_state, state=CANCELED, cancelled_at=now, renew_at=None, due_at=None)
    return Transition(over, CANCELED_EVENT)


def canceled(billing_state: BillingState, reason: str | None, now: int) -> Transition:
    """The shop cancels: nothing more is charged, and paid periods stay paid [C]. The outcome of a running charge is recorded."""
    due_at = billing_state.due_at if billing_state.state in UNDER_WAY else None
    if billing_state.state == REDIRECTING:  # the buyer may be at the 3-D Secure step
        due_at = now + calendar.HOUR
    over = replace(billing_state, state=CANCELED, cancel_reason=reason, cancelled_at=now, renew_at=None, due_at=due_at)
    return Transition(over, CANCELED_EVENT)


def start_of(period: int, billing_state: BillingState, terms: Terms) -> int:
    """When a period begins, counted from the anchor. The first period after a trial begins at the end of the trial."""
    anchor, anchor_period, day = _anchor_of(billing_state, terms)
    if terms.trial and anchor_period == 0 < period:
        return calendar.nth(anchor, terms.interval, period - 1, terms.zone, after=terms.trial.interval)
    return calendar.nth(anchor, terms.interval, period - anchor_period, terms.zone, day=day)


def _anchored(billing_state: BillingState, terms: Terms, now: int) -> BillingState:
    """The state with the time of the first charge as its anchor."""
    anchored = replace(billing_state, billing_cycle_anchor=now, anchor_period=0, anchor_day=None)
    return replace(anchored, anchored_at=start_of(1, anchored, terms) if terms.trial else now)


def _anchor_of(billing_state: BillingState, terms: Terms) -> tuple[int, int, int | None]:
    """The anchor, its period and its day of the month. A row of the previous release has only ``anchored_at``."""
    if billing_state.billing_cycle_anchor is not None:
        assert billing_state.anchor_period is not None
        return billing_state.billing_cycle_anchor, billing_state.anchor_period, billing_state.anchor_day
    assert billing_state.anchored_at is not None
    return billing_state.anchored_at, 1 if terms.trial else 0, None


def _with_kept_date(billing_state: BillingState, terms: Terms) -> BillingState:
    """The state with an anchor that keeps the stored start of the current period.

    The stored anchor gives another date if the previous release counted in UTC, or if the operator changed the time zone.
    Then the stored date becomes the new anchor.
    """
    assert billing_state.active_to is not None
    anchor, anchor_period, day = _anchor_of(billing_state, terms)
    if start_of(billing_state.period, billing_state, terms) != billing_state.active_to:
        day = calendar.day_of_month_ends(anchor, day, billing_state.active_to, terms.zone)
        anchor, anchor_period = billing_state.active_to, billing_state.period
    return replace(billing_state, billing_cycle_anchor=anchor, anchor_period=anchor_period, anchor_day=day)


def _first_period_after(billing_state: BillingState, terms: Terms, now: int) -> int:
    return calendar.first_after(lambda period: start_of(period, billing_state, terms), billing_state.period + 1, now)


def _paid_until(billing_state: BillingState, terms: Terms, period: int, state: str) -> BillingState:
    """The state after a payment: paid until the beginning of ``period``."""
    until = start_of(period, billing_state, terms)
    paid = replace(
        billing_state, period=period, active_to=until, renew_at=until, paid_billing_cycles=billing_state.paid_billing_cycles + 1
    )
    over = cycles_are_over(paid, terms)
    due_at = calendar.by_day_from(until, terms.zone) if terms.by_day and not over else until
    return replace(paid, state=state, due_at=due_at)


def _failed_at_once(billing_state: BillingState) -> Transition:
    """The first charge failed, so the subscription never became active [C]."""
    if billing_state.state == CANCELED:
        return Transition(replace(billing_state, due_at=None))
    return Transition(replace(billing_state, state=FAILED, due_at=None), FAILED_EVENT)


def _tried(billing_state: BillingState, terms: Terms, state: str, again_at: int, last_state: str) -> Transition:
    """An attempt of a later charge failed. After a trial that is not a first payment there is only one attempt [P]."""
    failures = billing_state.number_failed_payment_attempts + 1
    if billing_state.state == CANCELED:
        return Transition(replace(billing_state, due_at=None))
    tried = replace(billing_state, number_failed_payment_attempts=failures)
    only_try = terms.trial is not None and not terms.trial.as_first_payment and billing_state.paid_billing_cycles == 1
    if failures >= terms.attempts or only_try:
        return Transition(replace(tried, state=last_state, renew_at=None, due_at=None), FAILED_EVENT)
    return Transition(replace(tried, state=state, due_at=again_at))


def _unless_canceled(billing_state: BillingState, state: str) -> str:
    return CANCELED if billing_state.state == CANCELED else state
