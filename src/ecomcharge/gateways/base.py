"""The gateway protocol: orders and results. Two implementations: ``sandbox`` and ``begateway``.

A gateway is called with no transaction open. Every order has an id of ours, which the gateway stores. With this id we can look
up a charge whose outcome is not known, and an order that is sent twice is charged once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

SUCCESSFUL: Final = "successful"
FAILED: Final = "failed"  # the bank declined
ERROR: Final = "error"  # the gateway itself failed, and no money moved
INCOMPLETE: Final = "incomplete"  # the buyer must pass 3-D Secure first
UNKNOWN: Final = "unknown"  # no answer arrived; look the charge up before anything else

TIMEOUT_SECONDS: Final = 30.0  # the default limit for the whole answer of a gateway

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
    """A card as its holder entered it. It exists in memory only: it is never stored or logged, and ``repr`` hides it."""

    number: str = field(repr=False)
    verification_value: str | None = field(repr=False)
    holder: str | None = field(repr=False)
    exp_month: int
    exp_year: int
    hosted: bool = False  # the buyer entered it on our page; then the merchant does not see stamp and bin [P]

    def forget(self) -> None:
        """Drop number and security code, once the gateway has answered: other objects may still refer to the card."""
        object.__setattr__(self, "number", "")
        object.__setattr__(self, "verification_value", None)


_HASH: Final = {"pattern": "^[0-9a-f]{64}$"}  # the form of our stamps; gateways may use another form
_NULL_IF_HOSTED: Final = "`null` of a card that was typed into the hosted page."
_NULL_IF_UNKNOWN: Final = "`null` if the gateway does not say."


class Card(msgspec.Struct, frozen=True, omit_defaults=False):
    """The card object of the API, with its keys in the documented order [P]. ``token`` charges the card again."""

    holder: Annotated[str | None, Meta(description="Name on the card.")]
    stamp: Annotated[str | None, Meta(description=f"The same for the same number. {_NULL_IF_HOSTED}", extra_json_schema=_HASH)]
    brand: Annotated[str, Meta(description="Such as `visa` or `master`.")]
    last_4: Annotated[str, Meta(description="Last digits of the number.")]
    first_1: Annotated[str, Meta(description="First digit of the number.")]
    bin: Annotated[str | None, Meta(description=f"First digits of the number. {_NULL_IF_HOSTED}")]
    issuer_country: Annotated[str | None, Meta(description=f"Country of the bank. {_NULL_IF_UNKNOWN}")]
    issuer_name: Annotated[str | None, Meta(description=f"Name of the bank. {_NULL_IF_UNKNOWN}")]
    product: Annotated[str | None, Meta(description=f"Kind of card. {_NULL_IF_UNKNOWN}")]
    token: Annotated[str, Meta(description="Charges the card again.")]
    token_provider: Annotated[str | None, Meta(description=f"The issuer of the token. {_NULL_IF_UNKNOWN}")]
    exp_month: Annotated[int, Meta(description="Month.", extra_json_schema={"minimum": 1})]
    exp_year: Annotated[int, Meta(description="Year.", extra_json_schema={"minimum": 1})]
    sub_brand: Annotated[str | None, Meta(description=f"Brand within the brand. {_NULL_IF_UNKNOWN}")] = None


@dataclass(frozen=True, slots=True)
class Order:
    """One charge. ``amount`` in minor units; 0 only verifies the card."""

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
    """The outcome of a charge. ``uid`` is its id at the gateway; ``card`` is set once the gateway knows the card."""

    status: str
    message: str
    uid: str | None = None
    card: Card | None = None
    redirect_url: str | None = None


class Gateway(Protocol):
    name: str

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        """Charge a card or the card of a token. A repeated order returns the result of the first one.

        Errors of the gateway or the network are results, not exceptions. Without an answer the status is ``UNKNOWN``.
        """
        ...

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        """The charge with this id of ours: ``None`` if the gateway did not receive it, ``UNKNOWN`` if its outcome is not clear.

        The status is also ``UNKNOWN`` if the charge has another amount (minor units) or currency.
        """
        ...

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        """Refund a successful charge in full. Repeated calls refund it once.

        ``SUCCESSFUL`` if the money was returned, ``FAILED`` if the gateway refuses, ``UNKNOWN`` if the outcome is not clear.
        ``attempt`` increases after each ``FAILED``. Errors of the gateway or the network are results, not exceptions.
        """
        ...


_BRANDS: Final = (  # by the first digits: the public ranges of ISO/IEC 7812
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
