"""Amounts have the number of decimals of the platform's table, not of ISO 4217."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ecomcharge.base import money
from ecomcharge.checkout.summary import format_money
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.plans.model import PlanFields, Price, description_of

DIGITS = {
    **dict.fromkeys(("BIF", "CLF", "CLP", "CVE", "DJF", "GNF", "IDR", "IQD", "IRR", "ISK", "JPY", "KMF", "KPW", "KRW"), 0),
    **dict.fromkeys(("LAK", "LBP", "MMK", "PYG", "RWF", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    "MOP": 1,
    **dict.fromkeys(("BHD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def test_every_currency_has_the_digits_of_the_platform() -> None:
    assert DIGITS.keys() <= money.CURRENCIES
    assert {currency: money.digits_of(currency) for currency in money.CURRENCIES} == {
        currency: DIGITS.get(currency, 2) for currency in money.CURRENCIES
    }


def test_the_documented_digits_are_these() -> None:
    document = (Path(__file__).parents[3] / "docs/api.md").read_text()
    [listed] = re.findall(r"the currency, which are not always those of ISO 4217 \[W\]: (.*); two for all others\.", document)
    counts = {"none": 0, "one": 1, "three": 3}
    documented = {
        currency: counts[part.split()[0]] for part in listed.split("; ") for currency in re.findall(r"`([A-Z]{3})`", part)
    }
    assert documented == DIGITS


@pytest.mark.parametrize("currency", sorted(money.CURRENCIES))
def test_the_gateway_description_and_the_page_write_the_same_amount(currency: str) -> None:
    digits = DIGITS.get(currency, 2)
    number = {0: "50000", 1: "5000.0", 2: "500.00", 3: "50.000"}[digits]
    grouped = {0: "50,000", 1: "5,000.0", 2: "500.00", 3: "50.000"}[digits]
    plan = PlanFields("T", currency, Price(50000, 1, "month"), None, "en", True, None, 3, False, False, ())
    assert description_of(plan).endswith(f"{number} each 1 month.")
    assert format_money(50000, currency, translation_for("en").locale).endswith(grouped)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("currency", ["EUR", "UGX", *sorted(DIGITS)])
def test_every_language_writes_the_same_number_of_digits(language: str, currency: str) -> None:
    text = format_money(1, currency, translation_for(language).locale)
    least = {0: "1", 1: "01", 2: "001", 3: "0001"}[DIGITS.get(currency, 2)]
    assert "".join(filter(str.isdigit, text)) == least
