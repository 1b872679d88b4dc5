"""The summary of a subscription: plural forms of intervals, and amounts, in each language."""

from __future__ import annotations

import re

import pytest

from ecomcharge.base.calendar import LONGEST, UNITS, Interval
from ecomcharge.checkout.summary import format_duration, format_money, format_recurrence
from ecomcharge.checkout.translations import LANGUAGES, translation_for


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_interval_has_a_plural_form(language: str) -> None:
    translation = translation_for(language)
    for unit in UNITS:
        for count in [*range(1, 200), LONGEST[unit]]:
            interval = Interval(count, unit)
            assert str(count) in format_duration(interval, translation)
            assert (str(count) in format_recurrence(interval, translation)) == (count > 1)


@pytest.mark.parametrize(
    ("language", "count", "unit", "every", "duration"),
    [
        ("en", 1, "month", "every month", "1 month"),
        ("en", 3, "month", "every 3 months", "3 months"),
        ("ru", 1, "week", "каждую неделю", "1 неделя"),
        ("ru", 3, "month", "каждые 3 месяца", "3 месяца"),
        ("ru", 5, "year", "каждые 5 лет", "5 лет"),
        ("ru", 21, "week", "каждую 21 неделю", "21 неделя"),
        ("ru", 12, "day", "каждые 12 дней", "12 дней"),
        ("pl", 22, "hour", "co 22 godziny", "22 godziny"),
        ("pl", 12, "month", "co 12 miesięcy", "12 miesięcy"),
        ("be", 3, "day", "кожныя 3 дні", "3 дні"),
        ("de", 2, "year", "alle 2 Jahre", "2 Jahre"),
        ("fr", 2, "week", "toutes les 2 semaines", "2 semaines"),
        ("tr", 3, "month", "3 ayda bir", "3 ay"),
        ("zh", 3, "month", "每 3 个月", "3 个月"),
    ],
)
def test_intervals_follow_the_plural_rules_of_the_language(
    language: str, count: int, unit: str, every: str, duration: str
) -> None:
    interval, translation = Interval(count, unit), translation_for(language)
    assert (format_recurrence(interval, translation), format_duration(interval, translation)) == (every, duration)


@pytest.mark.parametrize(
    ("language", "amount", "currency", "expected"),
    [
        ("en", 123456, "EUR", "€1,234.56"),
        ("en", 999, "BYN", "BYN 9.99"),
        ("en", 999, "JPY", "¥999"),
        ("en", 12345, "IQD", "IQD 12,345"),  # the platform's decimals, not those of ISO 4217 or the locale
        ("en", 50000, "IDR", "IDR 50,000"),
        ("en", 12345, "MOP", "MOP 1,234.5"),
        ("en", 12345, "UGX", "UGX 123.45"),
        ("en", 12345, "KWD", "KWD 12.345"),
        ("ru", 50000, "CLF", "50 000 CLF"),
        ("de", 123456, "EUR", "1.234,56 €"),
        ("ru", 123456, "RUB", "1 234,56 ₽"),
        ("zh", 10**12 - 1, "CNY", "¥9,999,999,999.99"),
        ("en", 0, "USD", "$0.00"),
    ],
)
def test_amounts_are_formatted_for_the_language(language: str, amount: int, currency: str, expected: str) -> None:
    assert re.sub(r"\s", " ", format_money(amount, currency, translation_for(language).locale)) == expected
