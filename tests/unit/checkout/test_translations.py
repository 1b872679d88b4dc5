"""Translations are chosen by the language of a plan or of a browser."""

from __future__ import annotations

import pytest

from ecomcharge.checkout.translations import LANGUAGES, preferred_language, translation_for


def test_a_language_without_a_catalogue_is_english() -> None:
    assert translation_for("kk").language == "en"
    assert translation_for("kk").gettext("Card number") == "Card number"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_with_a_catalogue_is_translated(language: str) -> None:
    translation = translation_for(language)
    assert translation.language == translation.locale.language == language
    assert (translation.gettext("Card number") == "Card number") == (language == "en")


@pytest.mark.parametrize(
    ("accept_language", "expected"),
    [("", "en"), ("de", "de"), ("xx, de-AT;q=0.9, en;q=0.5", "de"), ("RU", "ru"), ("kk, sv", "en"), ("xx," * 20 + "de", "en")],
)
def test_the_first_known_language_of_a_browser_is_preferred(accept_language: str, expected: str) -> None:
    assert preferred_language(accept_language) == expected
