"""The code lists agree with the ISO standards."""

from __future__ import annotations

import pycountry
import pytest

from ecomcharge.base import iso_codes


def test_the_countries_are_those_of_iso_3166_1() -> None:
    assert {country.alpha_2 for country in pycountry.countries} == iso_codes.COUNTRIES


@pytest.mark.parametrize(("country", "states"), [("US", iso_codes.STATES_OF_US), ("CA", iso_codes.STATES_OF_CANADA)])
def test_the_states_are_those_of_iso_3166_2(country: str, states: frozenset[str]) -> None:
    subdivisions = pycountry.subdivisions.get(country_code=country)  # type: ignore[no-untyped-call]

    assert {subdivision.code.partition("-")[2] for subdivision in subdivisions} == states


def test_the_currencies_are_those_of_iso_4217_without_metals_funds_and_tests() -> None:
    money_under_x = {"XAF", "XCD", "XCG", "XOF", "XPF"}
    codes = {currency.alpha_3 for currency in pycountry.currencies}

    assert {code for code in codes if not code.startswith("X") or code in money_under_x} == iso_codes.CURRENCIES
