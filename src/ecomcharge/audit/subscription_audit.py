"""The audit of the subscriptions of a shop against their payments, events and webhooks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from ecomcharge.audit.model import NOT_CHECKED, Disagreement, Event, Finding, Totals, kept_since
from ecomcharge.audit.store import (
    EVENTS_OF_SUBSCRIPTIONS,
    PAYMENTS_OF_SUBSCRIPTIONS,
    WEBHOOK_OF_EVENT,
    WEBHOOKS_OF_SUBSCRIPTION,
)
from ecomcharge.audit.subscription_checks import check_billing_state, check_events, check_payments
from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import Clock
from ecomcharge.base.ids import SUBSCRIPTION_PREFIX, WEBHOOK_PREFIX, first_id_at
from ecomcharge.payments.model import Payment
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.storage.records import IdRange
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.model import Subscription

SUBSCRIPTIONS_PER_CHUNK: Final = 100
RECHECK_ATTEMPTS: Final = 5


@dataclass
class SubscriptionAudit:
    """``since`` in UTC milliseconds: earlier subscriptions are left out."""

    database: Database
    clock: Clock
    shop_id: int
    since: int
    recheck_seconds: float
    totals: Totals

    async def run(self) -> AsyncIterator[Disagreement]:
        after = first_id_at(SUBSCRIPTION_PREFIX, self.since) if self.since else ""
        while chunk := await self._subscriptions_after(after):
            self.totals.subscriptions += len(chunk)
            suspects = {one.subscription_id for one in await self._check(chunk)}
            if suspects:
                await asyncio.sleep(self.recheck_seconds)
                for subscription in chunk:
                    if subscription.id in suspects:
                        for found in await self._recheck(subscription.id):
                            yield found
            after = chunk[-1].id

    async def _subscriptions_after(self, after: str) -> list[Subscription]:
        every = subscriptions.Subscriptions(self.database, self.shop_id, subscriptions.Filter())
        return await every.select(SUBSCRIPTIONS_PER_CHUNK, IdRange(after=after))

    async def _recheck(self, subscription_id: str) -> list[Disagreement]:
        """Repeat the check until the subscription does not change during the check."""
        for _ in range(RECHECK_ATTEMPTS):
            before = await subscriptions.find(self.database, self.shop_id, subscription_id)
            if before is None:
                return []
            found = await self._check([before])
            after = await subscriptions.find(self.database, self.shop_id, subscription_id)
            if after is not None and after.version == before.version:
                return found
        message = f"{subscription_id} changed whenever it was read; audit it again"
        return [Disagreement(NOT_CHECKED, self.shop_id, message, subscription_id)]

    async def _check(self, chunk: Sequence[Subscription]) -> list[Disagreement]:
        between = {"shop_id": self.shop_id, "first": chunk[0].id, "last": chunk[-1].id}
        payments: defaultdict[str, list[Payment]] = defaultdict(list)
        for row in await self.database.rows(PAYMENTS_OF_SUBSCRIPTIONS, between):
            payment = Payment(*row)
            payments[payment.subscription_id].append(payment)
        events: defaultdict[str, list[Event]] = defaultdict(list)
        for object_id, *row in await self.database.rows(EVENTS_OF_SUBSCRIPTIONS, between):
            events[object_id].append(Event(*row))
        closed = {shop.shop_id for shop in await shops.all_shops(self.database) if shop.closed_at is not None}
        is_closed = self.shop_id in closed
        now = await self.clock.read()
        found: list[Disagreement] = []
        for each in chunk:
            for kind, message in (
                *check_billing_state(each, payments[each.id], is_closed),
                *check_payments(each, payments[each.id], now, is_closed),
                *check_events(each, payments[each.id], events[each.id], now),
                *await self._check_webhooks(each, events[each.id], now),
            ):
                found.append(Disagreement(kind, self.shop_id, f"{each.id}: {message}", each.id))
        return found

    async def _check_webhooks(self, subscription: Subscription, events: Sequence[Event], now: int) -> list[Finding]:
        if subscription.notification_url is None:
            return []
        missing = []
        for event in events:
            if event.created_at < kept_since(now):
                continue
            params = {
                "shop_id": self.shop_id,
                "first": first_id_at(WEBHOOK_PREFIX, event.created_at),
                "last": first_id_at(WEBHOOK_PREFIX, event.created_at + 1),
                "subscription_id": subscription.id,
                "sequence": event.sequence,
            }
            if not await self.database.rows(WEBHOOK_OF_EVENT, params):
                missing.append(event)
        if missing:
            shop_and_subscription = {"shop_id": self.shop_id, "subscription_id": subscription.id}
            rows = await self.database.rows(WEBHOOKS_OF_SUBSCRIPTION, shop_and_subscription)
            existing = {row[0] for row in rows}
            missing = [event for event in missing if event.sequence not in existing]
        return [
            ("webhook_missing", f"event {event.sequence} ({event.type}) of {iso(event.created_at)} has no webhook")
            for event in missing
        ]
