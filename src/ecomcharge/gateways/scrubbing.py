"""Removes card data from the texts of a gateway, before they are stored, logged or returned.

The texts may come from a bank, which may repeat what it was asked. What is removed becomes ``…``.
"""

from __future__ import annotations

import re
from typing import Final

from ecomcharge.base.text_forms import half_width
from ecomcharge.gateways.base import CardDetails

REMOVED: Final = "…"

_LONG_NUMBER: Final = re.compile(r"[0-9](?:[\s.\-\u2010-\u2015_*/]{0,3}[0-9]){11,18}")
# Names of the security code, and of its parts, in the languages of the gateways.
_NAME: Final = (
    r"(?:(?<![a-z])(?:cvv2?|cvc2?|cv2|cvn2?|cid|csc|cav2?)(?![a-z])|security[\W_]*(?:code|number|value)|verification[\W_]*(?:code|number|value)"
    r"|card[\W_]*code|код\w*[\W_]*(?:безопасности|проверки|карты)|код\w*[\W_]*бяспекі|провер\w*[\W_]*код\w*)"
)
_CODE: Final = r"(?<![0-9])[0-9]{3,4}(?![0-9])"
_NAMED_CODE: Final = re.compile(rf"({_NAME}[^0-9]{{0,20}}){_CODE}|{_CODE}([^0-9]{{0,20}}{_NAME})", re.IGNORECASE)


def scrub(text: str, card: CardDetails | str | None = None) -> str:
    """A text without anything that may be a card number or a security code: that of ``card``, or digits beside its name."""
    text = half_width(text)
    if isinstance(card, CardDetails):
        if card.number:
            text = re.sub(r"[\W_]{0,3}".join(card.number), REMOVED, text)
        if card.verification_value:
            text = re.sub(rf"(?<![0-9]){card.verification_value}(?![0-9])", REMOVED, text)
    text = _LONG_NUMBER.sub(REMOVED, text)
    while (scrubbed := _NAMED_CODE.sub(rf"\g<1>{REMOVED}\g<2>", text)) != text:
        text = scrubbed
    return text


def contains_number_of(card: CardDetails | str | None, text: str) -> bool:
    """Whether a text that must be kept unchanged, such as an address, contains the number of the card."""
    return isinstance(card, CardDetails) and bool(card.number) and re.search(r"[\W_]{0,3}".join(card.number), text) is not None
