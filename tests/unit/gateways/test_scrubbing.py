"""Card data in the texts of a gateway."""

from __future__ import annotations

import pytest

from ecomcharge.gateways.base import CardDetails
from ecomcharge.gateways.scrubbing import scrub

CARD = CardDetails("4200000000000000", "7391", "John Doe", 1, 2030)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Declined: 7391 is wrong", "Declined: … is wrong"),
        ("code=7391;", "code=…;"),
        ("Order 17391 or 73910", "Order 17391 or 73910"),
        ("CVV: 123", "CVV: …"),
        ("CVC2 mismatch (456)", "CVC2 mismatch (…)"),
        ("123 is no valid security code", "… is no valid security code"),
        ("Security-Code 0123, verification value 555", "Security-Code …, verification value …"),
        ("Неверный код безопасности: 321", "Неверный код безопасности: …"),
        ("verification_value=９９９", "verification_value=…"),
        ("card 4200 0000 0000 0000 was refused", "card … was refused"),
        ("card 4200.0000.0000.0000", "card …"),
        ("another one: 5204240000015003", "another one: …"),
        ("Error 051: insufficient funds, limit 1000", "Error 051: insufficient funds, limit 1000"),
        ("incident 1234", "incident 1234"),
    ],
)
def test_what_may_be_card_data_is_removed(text: str, scrubbed: str) -> None:
    assert scrub(text, CARD) == scrubbed


def test_without_a_card_digits_beside_the_name_of_a_code_are_removed() -> None:
    assert (
        scrub("Order 7391 of shop 1234 of today was refused: CVV 7391") == "Order 7391 of shop 1234 of today was refused: CVV …"
    )
