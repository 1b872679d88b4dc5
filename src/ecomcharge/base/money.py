"""Money: ISO 4217 currencies, and amounts in minor units, which are always integers."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ecomcharge.base import iso_codes

CURRENCIES: Final = iso_codes.CURRENCIES

AMOUNT_MAXIMUM: Final = 10**12 - 1  # minor units; the sum of all charges of a subscription fits 64 bits

# Decimal places of the currencies that do not have two, as in the platform's SDK [W]. ISO 4217 differs for some.
_WITHOUT: Final = "BIF CLF CLP CVE DJF GNF IDR IQD IRR ISK JPY KMF KPW KRW LAK LBP MMK PYG RWF UYI VND VUV XAF XOF XPF"
_WITH_ONE: Final = "MOP"
_WITH_THREE: Final = "BHD JOD KWD LYD OMR TND"
_DIGITS: Final = {
    currency: digits
    for digits, currencies in ((0, _WITHOUT), (1, _WITH_ONE), (3, _WITH_THREE))
    for currency in currencies.split()
}


def digits_of(currency: str) -> int:
    """The number of decimal places of a currency."""
    return _DIGITS.get(currency, 2)


def decimal_text(amount: int, currency: str) -> str:
    """``999`` in EUR becomes ``9.99``, in JPY ``999``."""
    digits = digits_of(currency)
    if not digits:
        return str(amount)
    return f"{amount // 10**digits}.{amount % 10**digits:0{digits}d}"


@lru_cache(maxsize=4096)
def readable(amount: int, currency: str) -> str:
    """As the platform describes plans: ``€9.99`` [P]. A symbol of letters is followed by a space: ``BYN 9.99`` [D].

    Babel is imported at the first call: a billing worker that only charges needs none of its 6 MiB.
    """
    from babel.numbers import get_currency_symbol

    symbol = get_currency_symbol(currency, "en")
    return f"{symbol}{' ' if symbol[-1].isalpha() else ''}{decimal_text(amount, currency)}"
