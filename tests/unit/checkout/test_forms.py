"""The forms of the checkout pages: the list of countries."""

from __future__ import annotations

from ecomcharge.base.postal import COUNTRIES
from ecomcharge.checkout.forms import countries


def test_countries_have_names_and_are_sorted() -> None:
    german = countries("de")
    assert {code for code, _ in german} == COUNTRIES
    names = [name for _, name in german]
    assert names.index("Österreich") < names.index("Polen")
    assert all(name != code for code, name in german)
