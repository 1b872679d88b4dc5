"""What each happening makes of a subscription, as the documentation and the captured traffic have it."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.lifecycle import Standing, Step, Terms, Trial
from ecomcharge.subscriptions.schedule import HOUR, Interval

DAY = 24 * HOUR
NOON = 20_000 * DAY + 12 * HOUR
DAILY = Interval(1, "day")


def terms(**chosen: object) -> Terms:
    usual = Terms(amount=999, interval=DAILY, trial=None, cycles=None, attempts=3, by_day=False, zone=ZoneInfo("UTC"))
    return replace(usual, **chosen)  # type: ignore[arg-type]


def trial(amount: int = 100, *, as_first_payment: bool = False) -> Trial:
    return Trial(amount, Interval(3, "day"), as_first_payment)


def begun(state: str = lifecycle.PROCESSING) -> Standing:
    return Standing(state, due_at=NOON)


def active(**chosen: object) -> Standing:
    """Paid at noon for a day, and now being charged for the next."""
    paid = lifecycle.succeeded(begun(), terms(), NOON).standing
    return replace(paid, state=lifecycle.PROCESSING, **chosen)  # type: ignore[arg-type]


def test_the_first_success_makes_it_active_for_one_interval() -> None:
    step = lifecycle.succeeded(begun(), terms(), NOON)
    assert step == Step(Standing("active", NOON, 1, NOON + DAY, NOON + DAY, 1, 0, due_at=NOON + DAY), "created.subscription")


def test_a_trial_is_charged_its_own_amount_and_ends_where_renewal_begins() -> None:
    plan = terms(trial=trial())
    assert lifecycle.amount_due(begun(), plan) == 100
    step = lifecycle.succeeded(begun(), plan, NOON)
    assert (step.standing.state, step.standing.paid_billing_cycles, step.event) == ("trial", 1, "created.subscription")
    assert step.standing.renew_at == step.standing.active_to == NOON + 3 * DAY
    assert lifecycle.amount_due(step.standing, plan) == 999
    paid = lifecycle.succeeded(step.standing, plan, NOON + 3 * DAY)
    assert (paid.standing.state, paid.standing.renew_at, paid.event) == ("active", NOON + 4 * DAY, "renewed.subscription")


def test_a_first_charge_that_fails_leaves_nothing_behind() -> None:
    for fails in (lifecycle.declined, lifecycle.errored):
        for plan in (terms(), terms(trial=trial())):
            step = fails(begun(), plan, NOON)
            assert step == Step(Standing("failed"), "failed.subscription")


def test_renewals_stay_anchored_however_late_the_charge_ran() -> None:
    step = lifecycle.succeeded(active(), terms(), NOON + DAY + 5 * HOUR)
    assert step.standing.renew_at == NOON + 2 * DAY
    assert step.skipped == 0


def test_periods_that_went_by_are_skipped_and_told() -> None:
    step = lifecycle.succeeded(active(), terms(), NOON + 4 * DAY + HOUR)
    assert (step.standing.renew_at, step.standing.period, step.skipped) == (NOON + 5 * DAY, 5, 3)
    assert step.standing.paid_billing_cycles == 2


def test_a_declined_renewal_is_tried_the_following_day_at_three_and_then_fails() -> None:
    first = lifecycle.declined(active(), terms(), NOON)
    assert (first.standing.state, first.standing.number_failed_payment_attempts) == ("failed_attempt", 1)
    assert (first.standing.due_at, first.event) == (NOON + 15 * HOUR, None)
    assert first.standing.renew_at == NOON + DAY
    second = lifecycle.declined(first.standing, terms(), NOON + 15 * HOUR)
    assert (second.standing.state, second.standing.due_at) == ("failed_attempt", NOON + 39 * HOUR)
    third = lifecycle.declined(second.standing, terms(), NOON + 39 * HOUR)
    assert (third.standing.state, third.standing.number_failed_payment_attempts) == ("failed", 3)
    assert (third.standing.due_at, third.standing.renew_at, third.event) == (None, None, "failed.subscription")
    assert third.standing.active_to == NOON + DAY


def test_by_day_it_is_tried_at_eight() -> None:
    assert lifecycle.declined(active(), terms(by_day=True), NOON).standing.due_at == NOON + 20 * HOUR


def test_an_erred_renewal_is_tried_each_following_hour_and_then_ends_in_error() -> None:
    now, standing = NOON + 10 * 60_000, active()
    for attempt, state in enumerate(("rescuing", "rescuing", "error"), 1):
        step = lifecycle.errored(standing, terms(), now)
        standing = step.standing
        assert (standing.state, standing.number_failed_payment_attempts) == (state, attempt)
        if state == "rescuing":
            assert standing.due_at == (now // HOUR + 1) * HOUR
            now = standing.due_at
    assert (step.event, standing.due_at) == ("failed.subscription", None)


def test_after_a_trial_that_is_no_first_payment_there_is_one_attempt() -> None:
    for as_first, state in ((False, "failed"), (True, "failed_attempt")):
        plan = terms(trial=trial(as_first_payment=as_first))
        in_trial = lifecycle.succeeded(begun(), plan, NOON).standing
        assert lifecycle.declined(in_trial, plan, NOON + 3 * DAY).standing.state == state
        paid = lifecycle.succeeded(in_trial, plan, NOON + 3 * DAY).standing
        assert lifecycle.declined(paid, plan, NOON + 4 * DAY).standing.state == "failed_attempt"


def test_a_success_sets_the_failures_back() -> None:
    tried = lifecycle.declined(active(), terms(), NOON + DAY).standing
    assert lifecycle.succeeded(tried, terms(), NOON + DAY + 15 * HOUR).standing.number_failed_payment_attempts == 0


def test_a_finite_plan_stays_until_its_end_and_is_canceled_then() -> None:
    plan = terms(cycles=1)
    paid = lifecycle.succeeded(begun(), plan, NOON).standing
    assert lifecycle.cycles_are_over(paid, plan)
    assert (paid.state, paid.due_at) == ("active", NOON + DAY)
    step = lifecycle.ended(paid, NOON + DAY)
    assert (step.standing.state, step.standing.cancelled_at, step.event) == ("canceled", NOON + DAY, "canceled.subscription")
    assert (step.standing.renew_at, step.standing.active_to, step.standing.due_at) == (None, NOON + DAY, None)


def test_canceling_keeps_what_is_paid() -> None:
    paid = lifecycle.succeeded(begun(), terms(), NOON).standing
    step = lifecycle.canceled(paid, "enough", NOON + HOUR)
    assert step.standing == replace(
        paid, state="canceled", cancel_reason="enough", cancelled_at=NOON + HOUR, renew_at=None, due_at=None
    )
    assert step.event == "canceled.subscription"


def test_a_canceled_subscription_wants_no_payment_any_more() -> None:
    over = lifecycle.canceled(active(due_at=NOON + DAY), "enough", NOON + DAY).standing
    assert over.due_at is not None
    assert not lifecycle.is_wanted(over, over.period)
    for fails in (lifecycle.declined, lifecycle.errored, lifecycle.forgotten):
        assert fails(over, terms(), NOON + DAY) == Step(replace(over, due_at=None))


def test_a_payment_is_wanted_while_its_period_is_unpaid() -> None:
    assert lifecycle.is_wanted(active(), 1)
    assert not lifecycle.is_wanted(active(), 0)
    for fails in (lifecycle.declined, lifecycle.errored):
        assert lifecycle.is_wanted(fails(active(), terms(), NOON).standing, 1)
        assert not lifecycle.is_wanted(fails(active(), terms(attempts=1), NOON).standing, 1)
    assert not lifecycle.is_wanted(lifecycle.expired(lifecycle.redirected(NOON)).standing, 0)


def test_a_canceled_3_d_secure_step_is_looked_at_hourly() -> None:
    waits = lifecycle.challenged(begun(), NOON)
    assert lifecycle.canceled(waits, None, NOON + 1).standing.due_at == NOON + 1 + HOUR
    canceled = lifecycle.canceled(begun(), None, NOON).standing
    assert lifecycle.challenged(canceled, NOON) == replace(canceled, due_at=NOON + HOUR)


def test_at_night_a_first_charge_by_token_waits_for_the_morning() -> None:
    night = NOON + 11 * HOUR
    waits = lifecycle.first_charge(terms(by_day=True), night, by_token=True)
    assert waits == Standing("pending", due_at=NOON + 20 * HOUR)
    assert lifecycle.first_charge(terms(by_day=True), night, by_token=False).state == "processing"
    assert lifecycle.first_charge(terms(by_day=True), NOON, by_token=True).state == "processing"
    assert lifecycle.first_charge(terms(), night, by_token=True).state == "processing"
    free = terms(by_day=True, trial=trial(0))
    assert lifecycle.first_charge(free, night, by_token=True).state == "processing"  # nothing is charged
    assert lifecycle.charge_time(terms(by_day=True), night) == NOON + 20 * HOUR
    assert lifecycle.charge_time(terms(), night) == night


def test_at_night_a_renewal_waits_for_the_morning() -> None:
    midnight = NOON + 12 * HOUR
    paid = lifecycle.succeeded(begun(), terms(by_day=True), midnight).standing
    assert (paid.renew_at, paid.due_at) == (midnight + DAY, midnight + DAY + 8 * HOUR)
    ends = lifecycle.succeeded(begun(), terms(by_day=True, cycles=1), midnight).standing
    assert ends.due_at == ends.renew_at  # an end is no charge


def test_an_unanswered_charge_shows_and_is_asked_for_again() -> None:
    assert lifecycle.unanswered(begun(), terms(), NOON + 1) == replace(begun(), state="getting_status", due_at=NOON + 1)
    assert lifecycle.unanswered(begun(), terms(trial=trial()), NOON + 1).state == "trial_get_status"
    assert lifecycle.charging(begun(), terms(trial=trial()), NOON).state == "trial_processing"


def test_a_renewal_that_was_never_sent_is_begun_again_and_a_first_charge_is_not() -> None:
    assert lifecycle.forgotten(active(), terms(), NOON) == Step(replace(active(), state="active", due_at=NOON))
    assert lifecycle.forgotten(begun(), terms(), NOON) == Step(Standing("failed"), "failed.subscription")


def test_a_buyer_has_a_day() -> None:
    assert lifecycle.redirected(NOON) == Standing("redirecting", due_at=NOON + DAY)
    assert lifecycle.challenged(begun(), NOON + HOUR).due_at == NOON + 25 * HOUR
    assert lifecycle.expired(lifecycle.redirected(NOON)) == Step(Standing("expired"), "expired.subscription")


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["succeeded", "declined", "errored", "unanswered", "forgotten", "canceled"]), st.integers(0, 40 * DAY)
    ),
    max_size=30,
)
TERMS = st.builds(
    Terms,
    amount=st.just(999),
    interval=st.sampled_from([Interval(1, "hour"), DAILY, Interval(2, "month"), Interval(1, "year")]),
    trial=st.one_of(st.none(), st.builds(Trial, st.integers(0, 99), st.just(DAILY), st.booleans())),
    cycles=st.one_of(st.none(), st.integers(1, 5)),
    attempts=st.integers(1, 4),
    by_day=st.booleans(),
    zone=st.sampled_from([ZoneInfo("UTC"), ZoneInfo("Europe/Warsaw")]),
)


@given(plan=TERMS, happenings=HAPPENINGS)
def test_whatever_happens_a_life_makes_sense(plan: Terms, happenings: list[tuple[str, int]]) -> None:
    standing, now, paid = begun(), NOON, 0
    for what, later in happenings:
        now += later
        before = standing
        if standing.state in lifecycle.OVER and standing.due_at is None:
            break
        if what == "succeeded" and standing.state in lifecycle.OVER:
            continue  # then the money goes back
        if what == "succeeded":
            step, paid = lifecycle.succeeded(standing, plan, now), paid + 1
            assert step.standing.active_to is not None
            assert step.standing.active_to > now
            assert step.standing.period > before.period
            assert step.standing.renew_at == step.standing.active_to
        elif what == "unanswered":
            step = Step(lifecycle.unanswered(standing, plan, now + 1))
        elif what == "canceled":
            if standing.state == "canceled":
                continue
            step = lifecycle.canceled(standing, None, now)
        else:
            step = getattr(lifecycle, what)(standing, plan, now)
            assert step.standing.paid_billing_cycles == before.paid_billing_cycles
            assert step.standing.number_failed_payment_attempts <= plan.attempts
        standing = step.standing
        assert standing.state in lifecycle.STATES
        assert standing.paid_billing_cycles == paid
        assert (standing.due_at is not None) or standing.state in lifecycle.OVER
        assert standing.state != "canceled" or standing.renew_at is None
        assert before.state != "canceled" or standing.state == "canceled"
