"""The audit: payments, subscriptions, events and webhooks against each other, and payments against the gateway's records.

It only reads, in chunks, and works beside running servers. What disagrees is read a second time, a moment later, and
counts only when it disagrees then too.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Final

import msgspec

from ecomcharge.base.calendar import HOUR, iso
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError, RecordNotFound
from ecomcharge.base.ids import SUBSCRIPTION_PREFIX, WEBHOOK_PREFIX, first_id_at, moment_of
from ecomcharge.events.model import KEPT_MILLISECONDS
from ecomcharge.gateways import base
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.gateways.sandbox import SandboxGateway
from ecomcharge.payments import model as payments_model
from ecomcharge.payments import store as payments_store
from ecomcharge.payments.model import ABSENT, EXPIRED, PENDING, REFUND_FAILED, REFUNDED, REFUNDING, VOIDED, Payment
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import lifecycle
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.lifecycle import CREATED_EVENT, REFUND_FAILED_EVENT, REFUNDED_EVENT, RENEWED_EVENT
from ecomcharge.subscriptions.model import Subscription

SUBSCRIPTIONS_PER_CHUNK: Final = 100
PAYMENTS_PER_CHUNK: Final = 500
LOOK_UPS_AT_ONCE: Final = 8
LOOK_UP_ATTEMPTS: Final = 3
READS_OF_A_CHANGING_ONE: Final = 5
RECHECK_SECONDS: Final = 2.0

# How old a payment may become without a final outcome. A buyer has a day for 3-D Secure; the rest are looked up hourly.
OLDEST_UNSETTLED: Final = {
    PENDING: 2 * HOUR,
    base.UNKNOWN: 2 * HOUR,
    REFUNDING: 2 * HOUR,
    base.INCOMPLETE: 25 * HOUR,
}
LOOK_UP_LATE: Final = 2 * HOUR  # then a look-up that is due is made by nobody

NO_RECORD: Final = "no record"
# What the gateway may say of a payment, by our status. A renewal that asked for 3-D Secure counts as failed, and a charge that
# was given up may have failed at the gateway later. The platform's gateway shows no refund on the payment.
GATEWAY_SAYS: Final = {
    base.SUCCESSFUL: frozenset((base.SUCCESSFUL,)),
    base.FAILED: frozenset((base.FAILED, base.INCOMPLETE, NO_RECORD)),
    base.ERROR: frozenset((base.ERROR, base.FAILED, base.INCOMPLETE, NO_RECORD)),
    ABSENT: frozenset((base.ERROR, base.FAILED, base.INCOMPLETE, NO_RECORD)),
    EXPIRED: frozenset((base.INCOMPLETE, base.FAILED, NO_RECORD)),
    REFUNDED: frozenset((base.SUCCESSFUL, REFUNDED)),
    REFUND_FAILED: frozenset((base.SUCCESSFUL,)),
    VOIDED: frozenset((base.SUCCESSFUL,)),
}
KEEPS_MONEY: Final = frozenset((base.SUCCESSFUL, REFUND_FAILED))  # we say the money was taken and not returned
_PAID_EVENTS: Final = frozenset((CREATED_EVENT, RENEWED_EVENT))
_END_EVENTS: Final = frozenset((lifecycle.CANCELED_EVENT, lifecycle.FAILED_EVENT, lifecycle.EXPIRED_EVENT))

PAYMENTS_AFTER: Final = f"""
SELECT {payments_store.COLUMNS} FROM payments WHERE shop_id = :shop_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
"""

# What is created later is left to the next audit: otherwise a busy server would never let one end.
LAST_PAYMENT: Final = """
SELECT MAX(id) FROM (
    SELECT MAX(id) AS id FROM payments WHERE shop_id = :shop_id
    UNION ALL SELECT MAX(id) AS id FROM sandbox_charges WHERE shop_id = :shop_id
) AS newest
"""

PAYMENTS_OF_SUBSCRIPTIONS: Final = f"""
SELECT {payments_store.COLUMNS} FROM payments
WHERE shop_id = :shop_id AND subscription_id >= :first AND subscription_id <= :last
ORDER BY subscription_id, period, attempt, id
"""

EVENTS_OF_SUBSCRIPTIONS: Final = """
SELECT object_id, sequence, type, created_at FROM events
WHERE shop_id = :shop_id AND object_id >= :first AND object_id <= :last ORDER BY object_id, sequence
"""

# Event and webhook are written with one time, which their ids begin with.
WEBHOOK_OF_THAT_TIME: Final = """
SELECT 1 FROM webhooks
WHERE shop_id = :shop_id AND id >= :first AND id < :last AND subscription_id = :subscription_id AND sequence = :sequence
"""

# For ids that do not begin with it, as when the clock was set back. It reads all webhooks of the shop.
WEBHOOKS_OF_SUBSCRIPTION: Final = """
SELECT sequence FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :subscription_id
"""

SANDBOX_CHARGES_BETWEEN: Final = """
SELECT id, status, amount, currency, refunded_at FROM sandbox_charges
WHERE shop_id = :shop_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
"""

SANDBOX_CHARGE: Final = """
SELECT id, status, amount, currency, refunded_at FROM sandbox_charges WHERE shop_id = :shop_id AND id = :id
"""


NOT_CHECKED: Final = "not_checked"


class Disagreement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Two records that do not agree. With kind ``not_checked`` the gateway could not be asked, which says nothing.

    ``kind`` is a stable name for scripts, ``message`` a sentence.
    """

    kind: str
    shop_id: int
    message: str
    subscription_id: str | None = None
    payment_id: str | None = None

    @property
    def is_checked(self) -> bool:
        return self.kind != NOT_CHECKED


@dataclass
class Totals:
    """Money that was taken and kept, in minor units, by gateway and currency: by our payments, and by the gateway's records."""

    ours: Counter[tuple[str, str]] = field(default_factory=Counter)
    gateways: Counter[tuple[str, str]] = field(default_factory=Counter)
    subscriptions: int = 0
    payments: int = 0

    def add_ours(self, payment: Payment) -> None:
        if payment.status in KEEPS_MONEY:
            self.ours[payment.gateway, payment.currency] += payment.amount

    def add_gateways(self, gateway: str, record: _Record) -> None:
        if record.status == base.SUCCESSFUL:
            self.gateways[gateway, record.currency] += record.amount

    def add(self, others: Totals) -> None:
        self.ours.update(others.ours)
        self.gateways.update(others.gateways)
        self.payments += others.payments


@dataclass(frozen=True)
class _Record:
    """What a gateway says of a charge. ``amount`` in minor units."""

    status: str
    amount: int
    currency: str


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
        events: defaultdict[str, list[_Event]] = defaultdict(list)
        for object_id, *row in await self.database.rows(EVENTS_OF_SUBSCRIPTIONS, between):
            events[object_id].append(_Event(*row))
        closed = {shop.shop_id for shop in await shops.all_shops(self.database) if shop.closed_at is not None}
        now = await self._now()
        found: list[Disagreement] = []
        for each in chunk:
            parked = shop_id in closed
            for kind, message in (
                *_check_billing_state(each, payments[each.id], parked),
                *_check_payments(each, payments[each.id], now, parked),
                *_check_events(each, payments[each.id], events[each.id], now),
                *await self._check_webhooks(each, events[each.id], now),
            ):
                found.append(Disagreement(kind, shop_id, f"{each.id}: {message}", each.id))
        return found

    async def _check_webhooks(self, each: Subscription, events: Sequence[_Event], now: int) -> list[_Finding]:
        if each.notification_url is None:
            return []
        missing = []
        for event in events:
            if event.created_at < _kept_since(now):
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

    async def _suspects(self, shop_id: int, chunk: Sequence[Payment], charges: dict[str, _Record], sums: Totals) -> list[Payment]:
        """Those that do not agree at first sight; the others are added up."""
        suspects = []
        now = await self._now()
        sums.payments += len(chunk)
        for payment, record in await self._records(shop_id, chunk, charges):
            if _check_record(payment, record, now) is not None:
                suspects.append(payment)
            elif payment.status in KEEPS_MONEY and isinstance(record, _Record):
                sums.add_ours(payment)
                sums.add_gateways(payment.gateway, record)
        return suspects

    async def _recheck_payment(self, shop_id: int, payment_id: str, sums: Totals) -> Disagreement | None:
        payment = await payments_store.find(self.database, shop_id, payment_id)
        if payment is None:
            return None
        [(_, record)] = await self._records(shop_id, [payment], await self._sandbox_charge(shop_id, payment_id))
        finding = _check_record(payment, record, await self._now())
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
        message = f"charge {charge_id}: the gateway says {record.status} ({_money(record)}), and there is no payment"
        return Disagreement("charge_without_payment", shop_id, message, None, charge_id)

    async def _sandbox_charges(self, position: dict[str, object]) -> dict[str, _Record]:
        """The sandbox's own records of the same range of ids; none where another gateway takes its place."""
        if not isinstance(self.gateways.sandbox, SandboxGateway):
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGES_BETWEEN, position))

    async def _sandbox_charge(self, shop_id: int, id: str) -> dict[str, _Record]:
        if not isinstance(self.gateways.sandbox, SandboxGateway):
            return {}
        return _by_id(await self.database.rows(SANDBOX_CHARGE, {"shop_id": shop_id, "id": id}))

    async def _records(
        self, shop_id: int, chunk: Sequence[Payment], sandbox_charges: dict[str, _Record]
    ) -> list[tuple[Payment, _Record | str | None]]:
        """With each payment what its gateway has of it: ``None`` for nothing, a sentence where it could not be asked."""
        limit = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

        async def record_of(payment: Payment) -> tuple[Payment, _Record | str | None]:
            if payment.gateway == SandboxGateway.name and isinstance(self.gateways.sandbox, SandboxGateway):
                return payment, sandbox_charges.get(payment.id)
            async with limit:
                return payment, await self._look_up(shop_id, payment)

        return list(await asyncio.gather(*(record_of(payment) for payment in chunk)))

    async def _look_up(self, shop_id: int, payment: Payment) -> _Record | str | None:
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
                return _Record(result.status, payment.amount, payment.currency)  # a look-up answers for this amount only
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


_Finding = tuple[str, str]  # kind and sentence


@dataclass(frozen=True)
class _Event:
    sequence: int
    type: str
    created_at: int


def _kept_since(now: int) -> int:
    """Events and webhooks from then on are there for certain: housekeeping deletes earlier ones while the audit runs."""
    return now - KEPT_MILLISECONDS + HOUR


def _check_billing_state(each: Subscription, payments: Sequence[Payment], parked: bool) -> list[_Finding]:
    billing_state = each.billing_state
    found: list[_Finding] = []
    paid = [payment for payment in payments if payment.status == base.SUCCESSFUL]
    if billing_state.paid_billing_cycles != len(paid):
        found.append(
            (
                "paid_cycles",
                f"paid_billing_cycles is {billing_state.paid_billing_cycles}, and {len(paid)} payments are successful",
            )
        )
    for period, times in Counter(payment.period for payment in paid).items():
        if times > 1:
            found.append(("paid_twice", f"period {period} has {times} successful payments"))
    cycles = None if each.plan.infinite else each.plan.billing_cycles
    if cycles is not None and len(paid) > max(1, cycles):
        found.append(("too_many_cycles", f"{len(paid)} payments are successful, and the plan has {cycles} billing cycles"))
    if billing_state.state not in lifecycle.OVER and billing_state.due_at is None and not parked:
        found.append(("forgotten", f"state is {billing_state.state}, and nothing will ever become due"))
    return found


def _check_payments(each: Subscription, payments: Sequence[Payment], now: int, parked: bool) -> list[_Finding]:
    found: list[_Finding] = []
    for payment in payments:
        oldest = OLDEST_UNSETTLED.get(payment.status)
        if oldest is None:
            if payment.status not in GATEWAY_SAYS:
                found.append(("unknown_status", f"payment {payment.id} has the unknown status {payment.status}"))
            continue
        check_at = payment.check_at
        if each.billing_state.due_at is None and check_at is None and not parked:
            found.append(("never_looked_up", f"payment {payment.id} is {payment.status}, and nobody will look for its outcome"))
        if now - payment.created_at > oldest and not parked:
            age = f"since {iso(payment.created_at)}"
            found.append(("unsettled_too_long", f"payment {payment.id} is {payment.status} {age}"))
    return [*found, *_check_last_transaction(each, payments)]


def _check_last_transaction(each: Subscription, payments: Sequence[Payment]) -> list[_Finding]:
    told = msgspec.json.decode(each.last_transaction)
    recorded = [payment for payment in payments if payment.status != PENDING]
    if not recorded:
        return [("last_transaction", f"last_transaction is {told['uid']}, and no payment is recorded")] if told else []
    latest = max(_recorded_at(payment) for payment in recorded)
    last = [payment for payment in recorded if _recorded_at(payment) == latest] + [recorded[-1]]
    expected = [payments_model.to_json(payment) for payment in last]
    if any((told.get("uid"), told.get("status")) == (one["uid"], one["status"]) for one in expected):
        return []
    was = f"{told.get('uid')} {told.get('status')}" if told else "empty"
    return [("last_transaction", f"last_transaction is {was}, and the last payment {expected[0]['uid']} {expected[0]['status']}")]


def _check_events(each: Subscription, payments: Sequence[Payment], events: Sequence[_Event], now: int) -> list[_Finding]:
    found: list[_Finding] = []
    sequences = [event.sequence for event in events]
    kept_since = _kept_since(now)
    whole = each.created_at >= kept_since and moment_of(each.id) >= kept_since  # none of its events was deleted for its age
    expected_first = 1 if whole else sequences[0] if sequences else each.sequence + 1
    missing = [number for before, number in pairwise([expected_first - 1, *sequences, each.sequence + 1]) if number != before + 1]
    if missing:
        found.append(("event_missing", f"events end at {each.sequence}, and one before {missing[0]} is missing"))
    paid_at = [_recorded_at(payment) for payment in payments if payment.status == base.SUCCESSFUL]
    paid = sum(whole or moment >= kept_since for moment in paid_at)
    told = sum(event.type in _PAID_EVENTS and (whole or event.created_at >= kept_since) for event in events)
    if paid != told:
        found.append(("paid_events", f"{told} events say created or renewed, and {paid} payments are successful"))
    if whole and sum(event.type == CREATED_EVENT for event in events) > 1:
        found.append(("paid_events", "more than one event says created"))
    if whole:
        found += _check_refund_events(payments, events)
    return [*found, *_check_end_events(each, [event.type for event in events], whole)]


def _check_refund_events(payments: Sequence[Payment], events: Sequence[_Event]) -> list[_Finding]:
    statuses, types = Counter(payment.status for payment in payments), Counter(event.type for event in events)
    found: list[_Finding] = []
    if not statuses[REFUNDED] <= types[REFUNDED_EVENT] <= statuses[REFUNDED] + statuses[VOIDED]:
        found.append(("refund_events", f"{types[REFUNDED_EVENT]} events say refunded, and {statuses[REFUNDED]} payments are"))
    # A gateway may make a refund that it had refused.
    if not statuses[REFUND_FAILED] <= types[REFUND_FAILED_EVENT] <= statuses[REFUND_FAILED] + statuses[REFUNDED]:
        found.append(
            (
                "refund_events",
                f"{types[REFUND_FAILED_EVENT]} events say refund_failed, and {statuses[REFUND_FAILED]} payments are",
            )
        )
    return found


def _check_end_events(each: Subscription, types: Sequence[str], whole: bool) -> list[_Finding]:
    """A subscription ends once, unless a success that came late made it active again."""
    over = each.billing_state.state in lifecycle.OVER
    kinds = [("end" if type in _END_EVENTS else "paid") for type in types if type in _END_EVENTS | _PAID_EVENTS]
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds)]
    if any(kind == "end" and count > 1 for kind, count in runs):
        return [("end_events", "two events say that it ended, and nothing was paid between them")]
    if over and whole and "end" not in kinds:
        return [("end_events", f"state is {each.billing_state.state}, and no event says that it ended")]
    if not over and kinds and kinds[-1] == "end":
        return [("end_events", f"state is {each.billing_state.state}, and the last event says that it ended")]
    return []


def _check_record(payment: Payment, record: _Record | str | None, now: int) -> _Finding | None:
    """What our payment and the gateway's record of it disagree about."""
    if isinstance(record, str):
        return NOT_CHECKED, record
    allowed = GATEWAY_SAYS.get(payment.status)
    if allowed is None:  # its outcome is still looked for
        return None
    said = NO_RECORD if record is None else record.status
    check_at = payment.check_at
    if said == base.INCOMPLETE and payment.status == base.FAILED and payment.period == 0:
        return "gateway_status", f"we say failed, and the gateway waits for the buyer ({_money(payment)})"
    kept_too = payment.gateway == SandboxGateway.name and payment.status == REFUNDED and said == base.SUCCESSFUL
    if said not in allowed or kept_too:
        if check_at is not None and now < check_at + LOOK_UP_LATE:  # it is looked up once more
            return None
        return "gateway_status", f"we say {payment.status}, the gateway says {said} ({_money(payment)})"
    if record is not None and (record.amount, record.currency) != (payment.amount, payment.currency):
        return "gateway_amount", f"we say {_money(payment)}, the gateway says {_money(record)}"
    return None


def _recorded_at(payment: Payment) -> int:
    return payment.created_at if payment.settled_at is None else payment.settled_at


def _money(thing: Payment | _Record) -> str:
    return f"{thing.amount} {thing.currency}"


def _last_of(chunk: Sequence[Payment] | dict[str, _Record], end: str) -> str:
    """Up to which id a chunk is complete: a full one up to its last, one that is not full up to the end."""
    if len(chunk) < PAYMENTS_PER_CHUNK:
        return end
    return max(chunk) if isinstance(chunk, dict) else chunk[-1].id


def _by_id(rows: Sequence[Sequence[object]]) -> dict[str, _Record]:
    return {
        str(id): _Record(str(status) if refunded_at is None else REFUNDED, int(str(amount)), str(currency))
        for id, status, amount, currency, refunded_at in rows
    }


def _first_payment_id(since: int) -> str:
    """Payments' ids begin with their time of creation in hexadecimal digits."""
    digits = f"{since:012x}"
    return f"{digits[:8]}-{digits[8:]}" if since else ""
