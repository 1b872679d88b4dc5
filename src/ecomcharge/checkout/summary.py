"""The summary of a subscription on the checkout pages: how price, trial, interval and dates are written in a language."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_time

from ecomcharge.base import calendar, money
from ecomcharge.base.calendar import Interval
from ecomcharge.checkout.translations import Translation, gettext_noop, ngettext_noop, translation_for
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions.model import Subscription

_LETTER_BEFORE_DIGIT: Final = re.compile(r"(?<=[^\W\d_])(?=\d)")  # CLDR separates a code such as BYN from its number

_DURATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "hour": ngettext_noop("%(count)d hour", "%(count)d hours"),
    "day": ngettext_noop("%(count)d day", "%(count)d days"),
    "week": ngettext_noop("%(count)d week", "%(count)d weeks"),
    "month": ngettext_noop("%(count)d month", "%(count)d months"),
    "year": ngettext_noop("%(count)d year", "%(count)d years"),
}
_EVERY_ONE: Final[Mapping[str, str]] = {
    "hour": gettext_noop("every hour"),
    "day": gettext_noop("every day"),
    "week": gettext_noop("every week"),
    "month": gettext_noop("every month"),
    "year": gettext_noop("every year"),
}
# The singular is needed too: in Russian 21 takes the form of 1.
_EVERY_FEW: Final[Mapping[str, tuple[str, str]]] = {
    "hour": ngettext_noop("every %(count)d hour", "every %(count)d hours"),
    "day": ngettext_noop("every %(count)d day", "every %(count)d days"),
    "week": ngettext_noop("every %(count)d week", "every %(count)d weeks"),
    "month": ngettext_noop("every %(count)d month", "every %(count)d months"),
    "year": ngettext_noop("every %(count)d year", "every %(count)d years"),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """A subscription in the words of its language. A line that does not apply is ``None``."""

    title: str
    price: str  # of the first charge
    is_free: bool  # the first charge
    trial: str | None
    renewal: str | None
    next_payment: str | None
    valid_until: str | None
    payments: str | None


def summarize(subscription: Subscription, now: int, zone: ZoneInfo) -> Summary:
    """The summary of a subscription in its language.

    ``now`` is in UTC milliseconds. ``zone`` is the time zone in which periods are counted and dates are written.
    """
    translation = translation_for(subscription.language)
    plan, billing_state = subscription.plan, subscription.billing_state
    first = plan.trial or plan.plan
    cycles = None if plan.infinite else plan.billing_cycles
    renews = billing_state.state not in lifecycle.OVER and (cycles is None or max(1, billing_state.paid_billing_cycles) < cycles)
    until = billing_state.active_to or calendar.nth(now, first.every, 1, zone)
    next_at = billing_state.renew_at or until
    if plan.prevent_payments_at_night:
        next_at = calendar.by_day_from(next_at, zone)
    trial = renewal = payments = None
    if plan.trial:
        free = plan.trial.amount == 0
        price = translation.gettext("free") if free else format_money(plan.trial.amount, plan.currency, translation.locale)
        trial = f"{format_duration(plan.trial.every, translation)} – {price}"
    if renews:
        price = format_money(plan.plan.amount, plan.currency, translation.locale)
        renewal = f"{price} {format_recurrence(plan.plan.every, translation)}"
    if cycles is not None:
        payments = str(cycles - (plan.trial is not None and plan.trial.amount == 0))
    unit = first.interval_unit if billing_state.paid_billing_cycles <= 1 else plan.plan.interval_unit
    return Summary(
        title=plan.title,
        price=format_money(first.amount, plan.currency, translation.locale),
        is_free=first.amount == 0,
        trial=trial,
        renewal=renewal,
        next_payment=format_moment(next_at, zone, unit, translation.locale) if renews else None,
        valid_until=None if renews else format_moment(until, zone, unit, translation.locale),
        payments=payments if payments not in (None, "0") else None,
    )


def format_money(amount: int, currency: str, locale: Locale) -> str:
    """Minor units as the locale writes money, with as many digits as the currency has."""
    digits = money.digits_of(currency)
    pattern = copy.copy(locale.currency_formats["standard"])
    pattern.frac_prec = (digits, digits)
    value = Decimal(amount).scaleb(-digits)
    text = str(pattern.apply(value, locale, currency=currency, currency_digits=False))
    return _LETTER_BEFORE_DIGIT.sub("\u00a0", text)


def format_duration(interval: Interval, translation: Translation) -> str:
    """``3 months``."""
    return translation.ngettext(*_DURATIONS[interval.unit], interval.count)


def format_recurrence(interval: Interval, translation: Translation) -> str:
    """``every month``, ``every 3 months``."""
    if interval.count == 1:
        return translation.gettext(_EVERY_ONE[interval.unit])
    return translation.ngettext(*_EVERY_FEW[interval.unit], interval.count)


def format_moment(moment: int, zone: ZoneInfo, unit: str, locale: Locale) -> str:
    """The date; with the time of day if ``unit``, the unit of the interval, is an hour. ``moment`` is in UTC milliseconds."""
    local = datetime.fromtimestamp(moment // 1000, UTC).astimezone(zone)
    date: str = format_date(local, "long", locale=locale)
    if unit != "hour":
        return date
    return f"{date}, {format_time(local, 'short', locale=locale)} {local.tzname()}"
