"""The audit compares payments, subscriptions, events and webhooks, and payments with the records of the gateways.

It only reads, in chunks, and can run while servers run. Records that disagree are read a second time after a delay, and count
only if they still disagree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from ecomcharge.audit.gateway_records import GatewayRecords
from ecomcharge.audit.model import Disagreement, Totals
from ecomcharge.audit.payment_audit import PaymentAudit
from ecomcharge.audit.subscription_audit import SubscriptionAudit
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import RecordNotFound
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database

RECHECK_SECONDS: Final = 2.0


@dataclass
class Audit:
    """An audit of one shop or of all shops. Subscriptions and payments before ``since`` (UTC milliseconds) are left out."""

    database: Database
    gateways: GatewayRegistry
    clock: Clock
    since: int = 0
    recheck_seconds: float = RECHECK_SECONDS
    totals: Totals = field(default_factory=Totals)

    async def run(self, shop_id: int | None = None) -> AsyncIterator[Disagreement]:
        """Audit one shop, or all shops. Raises ``RecordNotFound`` if the shop does not exist."""
        known = await shops.all_shops(self.database)
        if shop_id is not None and all(shop.shop_id != shop_id for shop in known):
            raise RecordNotFound(f"no shop {shop_id}")
        for shop in known:
            if shop_id in (None, shop.shop_id):
                async for found in self._audit_shop(shop.shop_id):
                    yield found

    async def _audit_shop(self, shop_id: int) -> AsyncIterator[Disagreement]:
        subscriptions = SubscriptionAudit(self.database, self.clock, shop_id, self.since, self.recheck_seconds, self.totals)
        async for found in subscriptions.run():
            yield found
        records = GatewayRecords(self.database, self.gateways, self.clock)
        sums = Totals()
        payments = PaymentAudit(self.database, records, self.clock, shop_id, self.since, self.recheck_seconds, sums)
        async for found in payments.run():
            yield found
        self.totals.add(sums)


async def audit(
    database: Database,
    gateways: GatewayRegistry,
    clock: Clock,
    *,
    shop_id: int | None = None,
    since: int = 0,
    recheck_seconds: float = RECHECK_SECONDS,
) -> list[Disagreement]:
    """All disagreements, for tests. Leaves out the records that could not be checked."""
    run = Audit(database, gateways, clock, since, recheck_seconds).run(shop_id)
    return [found async for found in run if found.is_checked]
