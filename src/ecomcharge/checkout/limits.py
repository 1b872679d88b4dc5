"""Limits of payments on the pages, against the testing of stolen cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ecomcharge.gateways import sandbox
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import AddressRateLimiter, EventLimiter

CARD_POLICY: Final = "checkout-card"
SHOP_POLICY: Final = "checkout-shop"
HOUR_SECONDS: Final = 60 * 60


@dataclass(frozen=True, slots=True)
class PaymentLimits:
    """The limits of one process: for each client address, for each card, and for each shop."""

    addresses: AddressRateLimiter
    cards: EventLimiter
    shops: EventLimiter

    def count_card(self, request: Request, shop_id: int, gateway: str, stamp: str) -> None:
        """Count a card that is tried. ``stamp`` is a keyed hash of its number. Raises ``TooManyRequests``.

        The sandbox has few cards, which move no money: only the address counts. A card over its limit uses nothing of its shop's.
        """
        self.addresses.count(request)
        if gateway != sandbox.NAME:
            self.cards.count(stamp)
            self.shops.count(shop_id)
