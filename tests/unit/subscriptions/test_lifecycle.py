"""The transitions of a subscription, as in the documentation and the captured traffic."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ecomcharge.base.calendar import HOUR, Interval, iso
from ecomcharge.plans.terms import Terms, Trial
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import BillingState, Transition

DAY = 24 * HOUR
NOON = 20_000 * DAY + 12 * HOUR
DAILY = Interval(1, "day")


def terms(**chosen: object) -> Terms:
    usual = Terms(amount=999, interval=DAILY, trial=None, cycles=None, attempts=3, by_day=False, zone=ZoneInfo("UTC"))
    return replace(usual, **chosen)


def trial(amount: int = 100, *, as_first_payment: bool = False) -> Trial:
    return Trial(amount, Interval(3, "day"), as_first_payment)


def started(state: str = lifecycle.PROCESSING) -> BillingState:
    return BillingState(state, due_at=NOON)


def active(**chosen: object) -> BillingState:
    """Paid at noon for a day, with a running charge for the next."""
    paid = lifecycle.succeeded(started(), terms(), NOON).billing_state
    return replace(paid, state=lifecycle.PROCESSING, **chosen)


def forgotten(billing_state: BillingState, plan: Terms, now: int) -> Transition:
    """A charge that was not sent; the card's token is stored."""
    return lifecycle.forgotten(billing_state, plan, now, has_token=True)


def test_the_first_successful_charge_activates_one_interval() -> None:
    step = lifecycle.succeeded(started(), terms(), NOON)
    paid = BillingState("active", NOON, 1, NOON + DAY, NOON + DAY, 1, 0, due_at=NOON + DAY)
    assert step == Transition(replace(paid, billing_cycle_anchor=NOON, anchor_period=0), "created.subscription")


def test_a_trial_has_its_own_amount_and_ends_at_the_first_renewal() -> None:
    plan = terms(trial=trial())
    assert lifecycle.amount_due(started(), plan) == 100
    step = lifecycle.succeeded(started(), plan, NOON)
    assert (step.billing_state.state, step.billing_state.paid_billing_cycles, step.event) == ("trial", 1, "created.subscription")
    assert step.billing_state.renew_at == step.billing_state.active_to == NOON + 3 * DAY
    assert lifecycle.amount_due(step.billing_state, plan) == 999
    paid = lifecycle.succeeded(step.billing_state, plan, NOON + 3 * DAY)
    assert (paid.billing_state.state, paid.billing_state.renew_at, paid.event) == (
        "active",
        NOON + 4 * DAY,
        "renewed.subscription",
    )


def test_a_failed_first_charge_leaves_no_dates() -> None:
    for fails in (lifecycle.declined, lifecycle.errored):
        for plan in (terms(), terms(trial=trial())):
            step = fails(started(), plan, NOON)
            assert step == Transition(BillingState("failed"), "failed.subscription")


def test_late_renewals_keep_the_anchor() -> None:
    step = lifecycle.succeeded(active(), terms(), NOON + DAY + 5 * HOUR)
    assert step.billing_state.renew_at == NOON + 2 * DAY
    assert step.skipped == 0


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def renewed(billing_state: BillingState, plan: Terms, times: int) -> list[str]:
    """The beginnings of the next periods if every charge is made on time."""
    found = []
    for _ in range(times):
        assert billing_state.active_to is not None
        billing_state = lifecycle.succeeded(
            replace(billing_state, state="processing"), plan, billing_state.active_to
        ).billing_state
        assert billing_state.renew_at == billing_state.active_to == lifecycle.start_of(billing_state.period, billing_state, plan)
        found.append(iso(billing_state.active_to or 0)[:16])
    return found


def of_previous_release(billing_state: BillingState) -> BillingState:
    """The billing state as written by the previous release."""
    return replace(billing_state, billing_cycle_anchor=None, anchor_period=None, anchor_day=None)


MONTHLY = Interval(1, "month")
MINSK, NEW_YORK = ZoneInfo("Europe/Minsk"), ZoneInfo("America/New_York")


def test_months_are_counted_in_the_servers_time_zone() -> None:
    plan = terms(interval=MONTHLY, zone=MINSK)
    paid = lifecycle.succeeded(started(), plan, at("2027-03-01T00:30+03:00")).billing_state
    assert iso(paid.renew_at or 0)[:16] == "2027-03-31T21:30"
    assert renewed(paid, plan, 2) == ["2027-04-30T21:30", "2027-05-31T21:30"]


def test_a_trial_in_months_keeps_the_day_of_the_first_date() -> None:
    for interval, later in (
        (MONTHLY, ["2027-03-31T10:00", "2027-04-30T10:00", "2027-05-31T10:00"]),
        (Interval(3, "month"), ["2027-05-31T10:00", "2027-08-31T10:00", "2027-11-30T10:00"]),
        (Interval(1, "year"), ["2028-02-29T10:00", "2029-02-28T10:00", "2030-02-28T10:00"]),
        (Interval(1, "week"), ["2027-03-07T10:00", "2027-03-14T10:00", "2027-03-21T10:00"]),
    ):
        plan = terms(interval=interval, trial=Trial(0, MONTHLY, False))
        in_trial = lifecycle.succeeded(started(), plan, at("2027-01-31T10:00Z")).billing_state
        assert in_trial.renew_at == in_trial.anchored_at == at("2027-02-28T10:00Z")
        assert renewed(in_trial, plan, 3) == later


def test_a_subscription_of_the_previous_release_continues_from_its_next_date() -> None:
    old = BillingState("active", at("2027-03-01T00:30+03:00"), 1, at("2027-03-28T21:30Z"), at("2027-03-28T21:30Z"), 1)
    plan = terms(interval=MONTHLY, zone=MINSK)
    assert renewed(old, plan, 3) == ["2027-04-28T21:30", "2027-05-28T21:30", "2027-06-28T21:30"]  # the 29th in Minsk


def test_a_subscription_of_the_previous_release_keeps_an_anchor_that_both_releases_agree_on() -> None:
    old = BillingState("active", at("2027-01-31T10:00Z"), 1, at("2027-02-28T10:00Z"), at("2027-02-28T10:00Z"), 1)
    for zone in (ZoneInfo("UTC"), MINSK):
        assert renewed(old, terms(interval=MONTHLY, zone=zone), 2) == ["2027-03-31T10:00", "2027-04-30T10:00"]
    in_trial = BillingState("trial", at("2027-02-28T10:00Z"), 1, at("2027-02-28T10:00Z"), at("2027-02-28T10:00Z"), 1)
    plan = terms(interval=MONTHLY, trial=Trial(0, MONTHLY, False), zone=MINSK)
    assert renewed(in_trial, plan, 2) == ["2027-03-28T10:00", "2027-04-28T10:00"]


def test_a_changed_time_zone_keeps_the_next_date_and_the_end_of_the_month() -> None:
    plan = terms(interval=MONTHLY)
    paid = lifecycle.succeeded(started(), plan, at("2026-12-31T12:00Z")).billing_state
    renewed_thrice = paid
    for _ in range(3):
        renewed_thrice = lifecycle.succeeded(renewed_thrice, plan, renewed_thrice.active_to or 0).billing_state
    assert renewed_thrice.renew_at == at("2027-04-30T12:00Z")  # 08:00 in New York; counting from 31 December gives 07:00
    moved = replace(plan, zone=NEW_YORK)
    assert renewed(renewed_thrice, moved, 3) == ["2027-05-31T12:00", "2027-06-30T12:00", "2027-07-31T12:00"]
    back = lifecycle.succeeded(renewed_thrice, moved, at("2027-04-30T12:00Z")).billing_state
    assert (back.anchor_period, back.anchor_day, back.anchored_at) == (4, 31, at("2026-12-31T12:00Z"))
    assert renewed(back, plan, 2) == ["2027-06-30T12:00", "2027-07-31T12:00"]


def test_a_renewal_by_the_previous_release_keeps_its_date() -> None:
    plan = terms(interval=MONTHLY, zone=MINSK)
    paid = lifecycle.succeeded(started(), plan, at("2027-03-01T00:30+03:00")).billing_state
    by_previous = replace(paid, period=2, renew_at=at("2027-04-28T21:30Z"), active_to=at("2027-04-28T21:30Z"))
    assert renewed(by_previous, plan, 2) == ["2027-05-28T21:30", "2027-06-28T21:30"]


@given(
    first=st.integers(0, 40 * 365 * DAY),
    interval=st.sampled_from([Interval(1, "hour"), DAILY, Interval(2, "week"), MONTHLY, Interval(1, "year")]),
    trial_interval=st.none() | st.sampled_from([Interval(5, "hour"), Interval(3, "day"), MONTHLY, Interval(1, "year")]),
    zones=st.lists(st.sampled_from([ZoneInfo("UTC"), MINSK, NEW_YORK, ZoneInfo("Australia/Lord_Howe")]), min_size=1, max_size=6),
    forgets=st.booleans(),
)
def test_a_stored_next_date_is_kept_in_every_time_zone(
    first: int, interval: Interval, trial_interval: Interval | None, zones: list[ZoneInfo], forgets: bool
) -> None:
    plan = terms(interval=interval, trial=Trial(0, trial_interval, False) if trial_interval else None)
    billing_state = lifecycle.succeeded(started(), plan, first).billing_state
    for zone in zones:
        if forgets:
            billing_state = of_previous_release(billing_state)
        moved, promised = replace(plan, zone=zone), billing_state.active_to
        assert promised is not None
        step = lifecycle.succeeded(billing_state, moved, promised)
        assert step.skipped == 0
        assert promised < (step.billing_state.renew_at or 0)
        assert step.billing_state.anchored_at == billing_state.anchored_at
        kept = replace(step.billing_state, period=billing_state.period)
        assert lifecycle.start_of(billing_state.period, kept, moved) == promised
        billing_state = step.billing_state


def test_missed_periods_are_skipped_and_counted() -> None:
    step = lifecycle.succeeded(active(), terms(), NOON + 4 * DAY + HOUR)
    assert (step.billing_state.renew_at, step.billing_state.period, step.skipped) == (NOON + 5 * DAY, 5, 3)
    assert step.billing_state.paid_billing_cycles == 2


def test_a_declined_renewal_is_retried_the_following_day_at_three_and_then_fails() -> None:
    first = lifecycle.declined(active(), terms(), NOON)
    assert (first.billing_state.state, first.billing_state.number_failed_payment_attempts) == ("failed_attempt", 1)
    assert (first.billing_state.due_at, first.event) == (NOON + 15 * HOUR, None)
    assert first.billing_state.renew_at == NOON + DAY
    second = lifecycle.declined(first.billing_state, terms(), NOON + 15 * HOUR)
    assert (second.billing_state.state, second.billing_state.due_at) == ("failed_attempt", NOON + 39 * HOUR)
    third = lifecycle.declined(second.billing_state, terms(), NOON + 39 * HOUR)
    assert (third.billing_state.state, third.billing_state.number_failed_payment_attempts) == ("failed", 3)
    assert (third.billing_state.due_at, third.billing_state.renew_at, third.event) == (None, None, "failed.subscription")
    assert third.billing_state.active_to == NOON + DAY


def test_a_plan_charged_by_day_is_retried_at_eight() -> None:
    assert lifecycle.declined(active(), terms(by_day=True), NOON).billing_state.due_at == NOON + 20 * HOUR


def test_a_renewal_with_errors_is_retried_hourly_and_then_ends_in_error() -> None:
    now, billing_state = NOON + 10 * 60_000, active()
    for attempt, state in enumerate(("rescuing", "rescuing", "error"), 1):
        step = lifecycle.errored(billing_state, terms(), now)
        billing_state = step.billing_state
        assert (billing_state.state, billing_state.number_failed_payment_attempts) == (state, attempt)
        if state == "rescuing":
            assert billing_state.due_at == (now // HOUR + 1) * HOUR
            now = billing_state.due_at
    assert (step.event, billing_state.due_at) == ("failed.subscription", None)


def test_the_charge_after_a_trial_has_one_attempt_unless_the_trial_is_a_first_payment() -> None:
    for as_first, state in ((False, "failed"), (True, "failed_attempt")):
        plan = terms(trial=trial(as_first_payment=as_first))
        in_trial = lifecycle.succeeded(started(), plan, NOON).billing_state
        assert lifecycle.declined(in_trial, plan, NOON + 3 * DAY).billing_state.state == state
        paid = lifecycle.succeeded(in_trial, plan, NOON + 3 * DAY).billing_state
        assert lifecycle.declined(paid, plan, NOON + 4 * DAY).billing_state.state == "failed_attempt"


def test_a_success_resets_the_failed_attempts() -> None:
    tried = lifecycle.declined(active(), terms(), NOON + DAY).billing_state
    assert lifecycle.succeeded(tried, terms(), NOON + DAY + 15 * HOUR).billing_state.number_failed_payment_attempts == 0


def test_a_finite_plan_is_active_until_its_end_and_then_canceled() -> None:
    plan = terms(cycles=1)
    paid = lifecycle.succeeded(started(), plan, NOON).billing_state
    assert lifecycle.cycles_are_over(paid, plan)
    assert (paid.state, paid.due_at) == ("active", NOON + DAY)
    step = lifecycle.ended(paid, NOON + DAY)
    assert (step.billing_state.state, step.billing_state.cancelled_at, step.event) == (
        "canceled",
        NOON + DAY,
        "canceled.subscription",
    )
    assert (step.billing_state.renew_at, step.billing_state.active_to, step.billing_state.due_at) == (None, NOON + DAY, None)


def test_canceling_keeps_the_paid_period() -> None:
    paid = lifecycle.succeeded(started(), terms(), NOON).billing_state
    step = lifecycle.canceled(paid, "enough", NOON + HOUR)
    assert step.billing_state == replace(
        paid, state="canceled", cancel_reason="enough", cancelled_at=NOON + HOUR, renew_at=None, due_at=None
    )
    assert step.event == "canceled.subscription"


def test_a_canceled_subscription_needs_no_payment() -> None:
    over = lifecycle.canceled(active(due_at=NOON + DAY), "enough", NOON + DAY).billing_state
    assert over.due_at is not None
    assert not lifecycle.is_wanted(over, over.period)
    for fails in (lifecycle.declined, lifecycle.errored, forgotten):
        assert fails(over, terms(), NOON + DAY) == Transition(replace(over, due_at=None))


def test_a_payment_is_needed_while_its_period_is_unpaid() -> None:
    assert lifecycle.is_wanted(active(), 1)
    assert not lifecycle.is_wanted(active(), 0)
    for fails in (lifecycle.declined, lifecycle.errored):
        assert lifecycle.is_wanted(fails(active(), terms(), NOON).billing_state, 1)
        assert not lifecycle.is_wanted(fails(active(), terms(attempts=1), NOON).billing_state, 1)
    assert not lifecycle.is_wanted(lifecycle.expired(lifecycle.redirected(NOON)).billing_state, 0)


def test_a_canceled_3_d_secure_step_is_looked_up_hourly() -> None:
    waits = lifecycle.challenged(started(), NOON)
    assert lifecycle.canceled(waits, None, NOON + 1).billing_state.due_at == NOON + 1 + HOUR
    canceled = lifecycle.canceled(started(), None, NOON).billing_state
    assert lifecycle.challenged(canceled, NOON) == replace(canceled, due_at=NOON + HOUR)


def test_at_night_a_first_charge_by_token_waits_for_the_morning() -> None:
    night = NOON + 11 * HOUR
    waits = lifecycle.first_charge(terms(by_day=True), night, by_token=True)
    assert waits == BillingState("pending", due_at=NOON + 20 * HOUR)
    assert lifecycle.first_charge(terms(by_day=True), night, by_token=False).state == "processing"
    assert lifecycle.first_charge(terms(by_day=True), NOON, by_token=True).state == "processing"
    assert lifecycle.first_charge(terms(), night, by_token=True).state == "processing"
    free = terms(by_day=True, trial=trial(0))
    assert lifecycle.first_charge(free, night, by_token=True).state == "processing"  # nothing is charged
    assert lifecycle.charge_time(terms(by_day=True), night) == NOON + 20 * HOUR
    assert lifecycle.charge_time(terms(), night) == night


def test_at_night_a_renewal_waits_for_the_morning() -> None:
    midnight = NOON + 12 * HOUR
    paid = lifecycle.succeeded(started(), terms(by_day=True), midnight).billing_state
    assert (paid.renew_at, paid.due_at) == (midnight + DAY, midnight + DAY + 8 * HOUR)
    ends = lifecycle.succeeded(started(), terms(by_day=True, cycles=1), midnight).billing_state
    assert ends.due_at == ends.renew_at  # an end is not a charge


def test_an_unanswered_charge_is_visible_and_looked_up_again() -> None:
    assert lifecycle.unanswered(started(), terms(), NOON + 1) == replace(started(), state="getting_status", due_at=NOON + 1)
    assert lifecycle.unanswered(started(), terms(trial=trial()), NOON + 1).state == "trial_get_status"
    assert lifecycle.charging(started(), terms(trial=trial()), NOON).state == "trial_processing"


def test_an_unsent_renewal_is_started_again_and_an_unsent_first_charge_is_not() -> None:
    assert forgotten(active(), terms(), NOON) == Transition(replace(active(), state="active", due_at=NOON))
    gone = lifecycle.forgotten(started(), terms(), NOON, has_token=False)
    assert gone == Transition(BillingState("failed"), "failed.subscription")
    assert forgotten(started(), terms(), NOON) == Transition(BillingState("pending", due_at=NOON))  # by a stored token


def test_a_payment_page_expires_after_a_day() -> None:
    assert lifecycle.redirected(NOON) == BillingState("redirecting", due_at=NOON + DAY)
    assert lifecycle.challenged(started(), NOON + HOUR).due_at == NOON + 25 * HOUR
    assert lifecycle.expired(lifecycle.redirected(NOON)) == Transition(BillingState("expired"), "expired.subscription")


FAILURES = {"declined": lifecycle.declined, "errored": lifecycle.errored, "forgotten": forgotten}
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["succeeded", "declined", "errored", "unanswered", "forgotten", "canceled"]), st.integers(0, 40 * DAY)
    ),
    max_size=30,
)
TERMS = st.builds(
    Terms,
    amount=st.just(999),
    interval=st.sampled_from([Interval(1, "hour"), DAILY, Interval(2, "month"), Interval(1, "year")]),
    trial=st.one_of(
        st.none(), st.builds(Trial, st.integers(0, 99), st.sampled_from([DAILY, Interval(1, "month")]), st.booleans())
    ),
    cycles=st.one_of(st.none(), st.integers(1, 5)),
    attempts=st.integers(1, 4),
    by_day=st.booleans(),
    zone=st.sampled_from([ZoneInfo("UTC"), ZoneInfo("Europe/Warsaw"), ZoneInfo("America/New_York")]),
)


@given(plan=TERMS, happenings=EVENTS)
def test_any_sequence_of_events_leaves_a_valid_state(plan: Terms, happenings: list[tuple[str, int]]) -> None:
    billing_state, now, paid = started(), NOON, 0
    for what, later in happenings:
        now += later
        before = billing_state
        if billing_state.state in lifecycle.OVER and billing_state.due_at is None:
            break
        if what == "succeeded" and billing_state.state in lifecycle.OVER:
            continue  # the payment is refunded
        if what == "succeeded":
            step, paid = lifecycle.succeeded(billing_state, plan, now), paid + 1
            assert step.billing_state.active_to is not None
            assert step.billing_state.active_to > now
            assert step.billing_state.period > before.period
            assert step.billing_state.renew_at == step.billing_state.active_to
        elif what == "unanswered":
            step = Transition(lifecycle.unanswered(billing_state, plan, now + 1))
        elif what == "canceled":
            if billing_state.state == "canceled":
                continue
            step = lifecycle.canceled(billing_state, None, now)
        else:
            step = FAILURES[what](billing_state, plan, now)
            assert step.billing_state.paid_billing_cycles == before.paid_billing_cycles
            assert step.billing_state.number_failed_payment_attempts <= plan.attempts
        billing_state = step.billing_state
        assert billing_state.state in lifecycle.STATES
        assert billing_state.paid_billing_cycles == paid
        assert (billing_state.due_at is not None) or billing_state.state in lifecycle.OVER
        assert billing_state.state != "canceled" or billing_state.renew_at is None
        assert before.state != "canceled" or billing_state.state == "canceled"
