"""Which texts contain a card number."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.card_numbers import has_card_number, has_valid_check_digit, is_card_number, may_contain, paths_in
from ecomcharge.base.errors import ValidationFailed
from ecomcharge.customers.model import MAY_LACK, CustomerBody, validate
from ecomcharge.gateways.sandbox import TEST_CARDS

VISA, AMEX, DINERS, UNIONPAY = "4200000000000000", "378282246310005", "30569309025904", "6200000000000000000"


def card_numbers() -> st.SearchStrategy[str]:
    """Numbers of several issuers, with their check digit."""
    begins = st.sampled_from(
        [("4", 16), ("53", 16), ("2300", 16), ("37", 15), ("38", 14), ("6011", 16), ("62", 19), ("9112", 16)]
    )

    def complete(issuer: tuple[str, int], rest: str) -> str:
        begin, length = issuer
        digits = (begin + rest)[: length - 1]
        return next(digits + last for last in "0123456789" if has_valid_check_digit(digits + last))

    return st.builds(complete, begins, st.text("0123456789", min_size=19, max_size=19))


def in_groups(number: str, size: int, separator: str) -> str:
    return separator.join(number[start : start + size] for start in range(0, len(number), size))


@given(
    number=card_numbers(),
    size=st.integers(3, 19),
    separator=st.sampled_from([" ", "-", "\u00a0", "\u2011", "  ", " - ", "\u00a0\u2013\u00a0", "\t"]),
    before=st.sampled_from(["", "card ", "my card:", "№", "card", "Карта", "CVV 123 "]),
    after=st.sampled_from(["", ".", " 12/30", "x", " 123"]),
    wide=st.booleans(),
    ascii_only=st.booleans(),
)
def test_a_number_in_any_writing_is_found(
    number: str, size: int, separator: str, before: str, after: str, wide: bool, ascii_only: bool
) -> None:
    text = before + in_groups(number, size, separator) + after
    if wide:
        text = text.translate({ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)})

    assert has_card_number(text)
    assert may_contain(json.dumps({"first_name": text}, ensure_ascii=ascii_only).encode())


def test_every_test_card_is_a_card_number() -> None:
    assert all(map(is_card_number, TEST_CARDS))


@pytest.mark.parametrize(
    "text",
    [
        "4200000000000001",  # check digit
        "1764530268123456",  # microseconds since 1970
        "+375 29 123-45-67, +49 1512 3456789",
        "4012345678901",  # a barcode; Visa cards of 13 digits are not issued
        "404-1234567-1234567",  # an order at a marketplace
        "4200000000000000000",  # 19 digits, as random 64-bit ids have
        "DE89 3704 0044 0532 0130 00",
        "AT611904300234573201",
        "42000000-0000-4000-8000-000000000000",
        "0" * 8 + "a" + VISA + "b" + "0" * 7,  # a hash
        "2026-11-30 19:17:48",
        "4 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0",  # sizes, or numbers of a lottery
        "490154203237518",  # IMEI
        "8944500102198304826",  # SIM card
    ],
)
def test_numbers_of_another_kind_are_accepted(text: str) -> None:
    assert not has_card_number(text)


def test_a_telephone_number_is_not_refused() -> None:
    assert has_card_number("+3782 822463 10005")
    assert not has_card_number("+3782 822463 10005", 16)


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({"a": {"b": [1, f"card {AMEX}"]}}, [("a", "b", "1")]),
        ({VISA: 1}, [()]),
        ({"card_number": int(VISA)}, [("card_number",)]),
        ({"PAN": int(VISA), "cc": [int(VISA)]}, [("PAN",), ("cc", "0")]),
        ({"card": float(VISA)}, [("card",)]),
        ({"order": int(VISA), "company": int(VISA), "discard_me": True, "n": None, "x": 1e308, "card": 1e308}, []),
        ({"order": VISA, "x": DINERS, "y": UNIONPAY}, [("order",), ("x",), ("y",)]),
    ],
)
def test_texts_are_checked_and_numbers_under_the_name_of_a_card(value: Any, places: list[tuple[str, ...]]) -> None:
    assert list(paths_in(value)) == places


@pytest.mark.parametrize("text", [{}, [], "x" * 501])
def test_an_error_of_metadata_does_not_repeat_a_card_number_in_its_key(text: Any) -> None:
    with pytest.raises(ValidationFailed) as caught:
        validate(CustomerBody(metadata={VISA: text, "other": text}), MAY_LACK)

    paths = {fault.path for fault in caught.value.faults}
    assert paths == {("metadata",), ("metadata", "other")}
    assert VISA not in str(caught.value.errors) + caught.value.message


@pytest.mark.parametrize("unit", ["456 ", "4567-", "4" * 15 + " ", "4 ", "4444444444444444"])
def test_a_long_text_of_digits_takes_little_time(unit: str) -> None:
    text = (unit * 65_536)[:65_536]
    started = time.process_time()

    has_card_number(text)

    assert time.process_time() - started < 0.2
