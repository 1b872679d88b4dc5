"""What a gateway is asked, and what it answers. Two implementations: ``sandbox`` and ``begateway``.

A gateway is called with no transaction open. Every order carries an id of ours that the gateway keeps, so that a
charge whose outcome never arrived can be looked up, and one that is sent twice is taken once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"  # the bank said no
ERROR: Final = "error"  # the gateway itself failed, and no money moved
INCOMPLETE: Final = "incomplete"  # the buyer has to pass 3-D Secure first
UNKNOWN: Final = "unknown"  # no answer came; look it up before anything else

SUCCESS_MESSAGE: Final = "Successfully processed"  # [P]
DECLINE_MESSAGE: Final = "Payment was declined"  # [C]
ERROR_MESSAGE: Final = "Gateway error"  # [D], as are the rest
TIMEOUT_MESSAGE: Final = "Gateway did not answer in time"
NO_TOKEN_MESSAGE: Final = "Gateway gave no token to charge the card again"  # noqa: S105 - a sentence
NO_ACCOUNT_MESSAGE: Final = "Gateway account is not set up"
NOT_CHOSEN_MESSAGE: Final = "Payment gateway is not configured for this shop"
SANDBOX_MODE_MESSAGE: Final = "A server in sandbox mode does not charge a real gateway"
EXPIRED_MESSAGE: Final = "Payment was not completed in time"
NOT_SENT_MESSAGE: Final = "Payment did not reach the gateway"
REFUND_REASON: Final = "The subscription was over when the payment completed"


@dataclass(frozen=True, slots=True)
class CardDetails:
    """A card as its holder typed it. It lives in memory only: it is never stored, logged or shown, not even by ``repr``."""

    number: str = field(repr=False)
    verification_value: str | None = field(repr=False)
    holder: str | None = field(repr=False)
    exp_month: int
    exp_year: int
    hosted: bool = False  # typed into our page and not sent by the merchant, who then does not see stamp and bin [P]


class Card(msgspec.Struct, frozen=True, omit_defaults=False):
    """A card as the wire shows it, keys in the documented order [P]. ``token`` charges it again."""

    holder: str | None
    stamp: str | None
    brand: str
    last_4: str
    first_1: str
    bin: str | None
    issuer_country: str | None
    issuer_name: str | None
    product: str | None
    token: str
    token_provider: str | None
    exp_month: int
    exp_year: int
    sub_brand: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One charge. ``amount`` in minor units; 0 verifies the card and takes nothing."""

    id: str
    shop_id: int
    amount: int
    currency: str
    description: str
    test: bool
    language: str
    return_url: str
    customer: Mapping[str, str | None]
    descriptor: str | None = None
    recurring: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a charge. ``uid`` is the gateway's id of it, ``card`` is known once the gateway has one."""

    status: str
    message: str
    uid: str | None = None
    card: Card | None = None
    redirect_url: str | None = None


class Gateway(Protocol):
    name: str

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        """Charge a card, or the one that a token stands for. An order that was taken before is answered as it was then.

        Never raises for what a gateway or a network does: no answer is ``UNKNOWN``.
        """
        ...

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        """The charge with this id of ours: ``None`` if the gateway never had it, ``UNKNOWN`` if nobody can tell.

        Nor can a gateway tell that took something else than ``amount`` (minor units) of ``currency``.
        """
        ...

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        """Give back the whole of a successful charge, once, however often it is asked.

        ``SUCCESSFUL`` when the money went back, ``FAILED`` when the gateway refuses, ``UNKNOWN`` when nobody can tell.
        ``attempt`` rises after each ``FAILED``. Never raises for what a gateway or a network does.
        """
        ...


_BRANDS: Final = (  # by the first digits, as ISO/IEC 7812 ranges are known publicly
    ("visa", 4, 4),
    ("master", 51, 55),
    ("master", 2221, 2720),
    ("mir", 2200, 2204),
    ("belkart", 9112, 9112),
    ("amex", 34, 34),
    ("amex", 37, 37),
    ("jcb", 3528, 3589),
    ("dinersclub", 36, 36),
    ("unionpay", 62, 62),
    ("discover", 6011, 6011),
    ("maestro", 50, 50),
    ("maestro", 56, 69),
)


def brand_of(number: str) -> str:
    for brand, first, last in _BRANDS:
        if first <= int(number[: len(str(first))]) <= last:
            return brand
    return "unknown"
