"""The audit: payments, subscriptions, events and webhooks against each other, and payments against the gateway's records.

It only reads, in chunks, and works beside running servers. What disagrees is read a second time, a moment later, and
counts only when it disagrees then too.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ecomcharge.audit.model import (
    KEEPS_MONEY,
    NOT_CHECKED,
    Disagreement,
    Event,
    Finding,
    Record,
    Totals,
    kept_since,
    money,
)
from ecomcharge.audit.payment_checks import check_record
from ecomcharge.audit.store import (
    EVENTS_OF_SUBSCRIPTIONS,
    LAST_PAYMENT,
    PAYMENTS_AFTER,
    PAYMENTS_OF_SUBSCRIPTIONS,
    SANDBOX_CHARGE,
    SANDBOX_CHARGES_BETWEEN,
    WEBHOOK_OF_THAT_TIME,
    WEBHOOKS_OF_SUBSCRIPTION,
)
from ecomcharge.audit.subscription_checks import check_billing_state, check_events, check_payments
from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError, RecordNotFound
from ecomcharge.base.ids import SUBSCRIPTION_PREFIX, WEBHOOK_PREFIX, first_id_at
from ecomcharge.gateways import base
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments import store as payments_store
from ecomcharge.payments.model import REFUNDED, Payment
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.model import Subscription

SUBSCRIPTIONS_PER_CHUNK: Final = 100
PAYMENTS_PER_CHUNK: Final = 500
LOOK_UPS_AT_ONCE: Final = 8
LOOK_UP_ATTEMPTS: Final = 3
READS_OF_A_CHANGING_ONE: Final = 5
RECHECK_SECONDS: Final = 2.0


@dataclass
class Audit:
    """``since`` in UTC milliseconds: subscriptions and payments that were created earlier are left out."""

    database: Database
    gateways: GatewayRegistry
    clock: Clock
    since: int = 0
    recheck_seconds: float = RECHECK_SECONDS
    totals: Totals = field(default_factory=Totals)

    async def run(self, shop_id: int | None = None) -> AsyncIterator[Disagreement]:
        """All shops, or one. Raises ``RecordNotFound`` where there is no such shop."""
        known = await shops.all_shops(self.database)
        if shop_id is not None and all(shop.shop_id != shop_id for shop in known):
            raise RecordNotFound(f"no shop {shop_id}")
        for shop in known:
            if shop_id in (None, shop.shop_id):
                async for found in self._shop(shop.shop_id):
                    yield found

    async def _shop(self, shop_id: int) -> AsyncIterator[Disagreement]:
        after = first_id_at(SUBSCRIPTION_PREFIX, self.since) if self.since else ""
        while chunk := await self._subscriptions(shop_id, after, SUBSCRIPTIONS_PER_CHUNK):
            self.totals.subscriptions += len(chunk)
            suspects = {one.subscription_id for one in await self._check_subscriptions(shop_id, chunk)}
            if suspects:
                await asyncio.sleep(self.recheck_seconds)
                for each in chunk:
                    if each.id in suspects:
                        for found in await self._recheck_subscription(shop_id, each.id):
                            yield found
            after = chunk[-1].id
        async for found in self._payments(shop_id):
            yield found

    # Subscriptions, and what belongs to them

    async def _subscriptions(self, shop_id: int, after: str, limit: int) -> list[Subscription]:
        return await subscriptions.Subscriptions(self.database, shop_id, subscriptions.Filter()).after(after, limit)

    async def _now(self) -> int:
        return await self.clock.read()

    async def _recheck_subscription(self, shop_id: int, subscription_id: str) -> list[Disagreement]:
        """Read until nobody changes it meanwhile."""
        for _ in range(READS_OF_A_CHANGING_ONE):
            before = await subscriptions.find(self.database, shop_id, subscription_id)
            if before is None:
                return []
            found = await self._check_subscriptions(shop_id, [before])
            after = await subscriptions.find(self.database, shop_id, subscription_id)
            if after is not None and after.version == before.version:
                return found
        message = f"{subscription_id} changed whenever it was read; audit it again"
        return [Disagreement(NOT_CHECKED, shop_id, message, subscription_id)]

    async def _check_subscriptions(self, shop_id: int, chunk: Sequence[Subscription]) -> list[Disagreement]:
        between = {"shop_id": shop_id, "first": chunk[0].id, "last": chunk[-1].id}
        payments: defaultdict[str, list[Payment]] = defaultdict(list)
        for row in await self.database.rows(PAYMENTS_OF_SUBSCRIPTIONS, between):
            payment = Payment(*row)
            payments[payment.subscription_id].append(payment)
        events: defaultdict[str, list[Event]] = defaultdict(list)
        for object_id, *row in await self.database.rows(EVENTS_OF_SUBSCRIPTIONS, between):
            events[object_id].append(Event(*row))
        closed = {shop.shop_id for shop in await shops.all_shops(self.database) if shop.closed_at is not None}
        now = await self._now()
        found: list[Disagreement] = []
        for each in chunk:
            parked = shop_id in closed
            for kind, message in (
                *check_billing_state(each, payments[each.id], parked),
                *check_payments(each, payments[each.id], now, parked),
                *check_events(each, payments[each.id], events[each.id], now),
                *await self._check_webhooks(each, events[each.id], now),
            ):
                found.append(Disagreement(kind, shop_id, f"{each.id}: {message}", each.id))
        return found

    async def _check_webhooks(self, each: Subscription, events: Sequence[Event], now: int) -> list[Finding]:
        if each.notification_url is None:
            return []
        missing = []
        for event in events:
            if event.created_at < kept_since(now):
                continue
            params = {
                "shop_id": each.shop_id,
                "first": first_id_at(WEBHOOK_PREFIX, event.created_at),
                "last": first_id_at(WEBHOOK_PREFIX, event.created_at + 1),
                "subscription_id": each.id,
                "sequence": event.sequence,
            }
            if not await self.database.rows(WEBHOOK_OF_THAT_TIME, params):
                missing.append(event)
        if missing:
            rows = await self.database.rows(WEBHOOKS_OF_SUBSCRIPTION, {"shop_id": each.shop_id, "subscription_id": each.id})
            there = {row[0] for row in rows}
            missing = [event for event in missing if event.sequence not in there]
        return [
            ("webhook_missing", f"event {event.sequence} ({event.type}) of {iso(event.created_at)} has no webhook")
            for event in missing
        ]

    # Payments against the gateway's records

    async def _payments(self, shop_id: int) -> AsyncIterator[Disagreement]:
        sums = Totals()
        confirmed = False
        after = _first_payment_id(self.since)
        end = (await self.database.rows(LAST_PAYMENT, {"shop_id": shop_id}))[0][0] or ""
        while after < end:
            position = {"shop_id": shop_id, "after": after, "last": end, "limit": PAYMENTS_PER_CHUNK}
            chunk = [Payment(*row) for row in await self.database.rows(PAYMENTS_AFTER, position)]
            charges = await self._sandbox_charges(position)
            after = min(_last_of(chunk, end), _last_of(charges, end))
            chunk = [payment for payment in chunk if payment.id <= after]
            strangers = [id for id in charges if id <= after and id not in {payment.id for payment in chunk}]
            suspects = await self._suspects(shop_id, chunk, charges, sums)
            if suspects or strangers:
                await asyncio.sleep(self.recheck_seconds)
            for payment in suspects:
                found = await self._recheck_payment(shop_id, payment.id, sums)
                if found is not None:
                    confirmed = confirmed or found.is_checked
                    yield found
            for id in strangers:
                found = await self._recheck_stranger(shop_id, id, sums)
                if found is not None:
                    confirmed = True
                    yield found
        self.totals.add(sums)
        if confirmed:  # otherwise what differs changed between two reads
            for gateway, currency in sorted({*sums.ours, *sums.gateways}):
                ours, theirs = sums.ours[gateway, currency], sums.gateways[gateway, currency]
                if ours != theirs:
                    message = f"total of {gateway}: our payments took {ours} {currency}, its records say {theirs} (minor units)"
                    yield Disagreement("total", shop_id, message)

    async def _suspects(self, shop_id: int, chunk: Sequence[Payment], charges: dict[str, Record], sums: Totals) -> list[Payment]:
        """Those that do not agree at first sight; the others are added up."""
        suspects = []
        now = await self._now()
        sums.payments += len(chunk)
        for payment, record in await self._records(shop_id, chunk, charges):
            if check_record(payment, record, now) is not None:
                suspects.append(payment)
            elif payment.status in KEEPS_MONEY and isinstance(record, Record):
                sums.add_ours(payment)
                sums.add_gateways(payment.gateway, record)
        return suspects

    async def _recheck_payment(self, shop_id: int, payment_id: str, sums: Totals) -> Disagreement | None:
        payment = await payments_store.find(self.database, shop_id, payment_id)
        if payment is None:
            return None
        [(_, record)] = await self._records(shop_id, [payment], await self._sandbox_charge(shop_id, payment_id))
        finding = check_record(payment, record, await self._now())
        if not isinstance(record, str):
            sums.add_ours(payment)
            if record is not None and (finding is not None or payment.status in KEEPS_MONEY):
                sums.add_gateways(payment.gateway, record)
        if finding is None:
            return None
        kind, message = finding
        return Disagreement(kind, shop_id, f"payment {payment.id}: {message}", payment.subscription_id, payment.id)

    async def _recheck_stranger(self, shop_id: int, charge_id: str, sums: Totals) -> Disagreement | None:
        """A charge in the gateway's records for which there was no payment."""
        record = (await self._sandbox_charge(shop_id, charge_id)).get(charge_id)
        if record is None or await payments_store.find(self.database, shop_id, charge_id) is not None:
            return None
        sums.add_gateways(SandboxGateway.name, record)
        message = f"charge {charge_id}: the gateway says {record.status} ({money(record)}), and there is no payment"
        return Disagreement("charge_without_payment", shop_id, message, None, charge_id)

    async def _sandbox_charges(self, position: dict[str, object]) -> dict[str, Record]:
        """The sandbox's own records of the same range of ids; none where another gateway takes its place."""
        if not isinstance(self.gateways.sandbox, SandboxGateway):
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGES_BETWEEN, position))

    async def _sandbox_charge(self, shop_id: int, id: str) -> dict[str, Record]:
        if not isinstance(self.gateways.sandbox, SandboxGateway):
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGE, {"shop_id": shop_id, "id": id}))

    async def _records(
        self, shop_id: int, chunk: Sequence[Payment], sandbox_charges: dict[str, Record]
    ) -> list[tuple[Payment, Record | str | None]]:
        """With each payment what its gateway has of it: ``None`` for nothing, a sentence where it could not be asked."""
        limit = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

        async def record_of(payment: Payment) -> tuple[Payment, Record | str | None]:
            if payment.gateway == SandboxGateway.name and isinstance(self.gateways.sandbox, SandboxGateway):
                return payment, sandbox_charges.get(payment.id)
            async with limit:
                return payment, await self._look_up(shop_id, payment)

        return list(await asyncio.gather(*(record_of(payment) for payment in chunk)))

    async def _look_up(self, shop_id: int, payment: Payment) -> Record | str | None:
        for _ in range(LOOK_UP_ATTEMPTS):
            try:
                gateway = await self.gateways.named(payment.gateway, shop_id, payment.gateway_account)
                now = await self._now()
                result = await gateway.look_up(shop_id, payment.id, now, amount=payment.amount, currency=payment.currency)
            except EcomchargeError as error:
                return f"not checked: {error}"
            if result is None:
                return None
            if result.status != base.UNKNOWN:
                return Record(result.status, payment.amount, payment.currency)  # a look-up answers for this amount only
        return "not checked: the gateway did not answer, or not about this amount"


async def audit(
    database: Database,
    gateways: GatewayRegistry,
    clock: Clock,
    *,
    shop_id: int | None = None,
    since: int = 0,
    recheck_seconds: float = RECHECK_SECONDS,
) -> list[Disagreement]:
    """Everything that disagrees, for tests. What could not be checked is not in it."""
    run = Audit(database, gateways, clock, since, recheck_seconds).run(shop_id)
    return [found async for found in run if found.is_checked]


def _last_of(chunk: Sequence[Payment] | dict[str, Record], end: str) -> str:
    """Up to which id a chunk is complete: a full one up to its last, one that is not full up to the end."""
    if len(chunk) < PAYMENTS_PER_CHUNK:
        return end
    return max(chunk) if isinstance(chunk, dict) else chunk[-1].id


def _by_id(rows: Sequence[Sequence[object]]) -> dict[str, Record]:
    return {
        str(id): Record(str(status) if refunded_at is None else REFUNDED, int(str(amount)), str(currency))
        for id, status, amount, currency, refunded_at in rows
    }


def _first_payment_id(since: int) -> str:
    """Payments' ids begin with their time of creation in hexadecimal digits."""
    digits = f"{since:012x}"
    return f"{digits[:8]}-{digits[8:]}" if since else ""
