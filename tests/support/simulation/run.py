"""One run: a shop, its subscriptions, the faults, and the checks at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any, Final
from zoneinfo import ZoneInfo

from ecomcharge.audit.audit import audit
from ecomcharge.base.calendar import HOUR
from ecomcharge.base.errors import ShopClosed, Unavailable
from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import base
from ecomcharge.gateways.base import CardDetails
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import LIVE, REFUND_FAILED, REFUNDED, REFUNDING, VOIDED
from ecomcharge.plans.model import PlanFields, Price, TrialPrice, terms_of
from ecomcharge.shops.actions import close_shop
from ecomcharge.shops.model import FIRST_ACCOUNT
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import actions, closed_shops, lifecycle, renewals, store
from ecomcharge.subscriptions.actions import IdGenerators
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription
from ecomcharge.subscriptions.notifications import EventRecorder
from ecomcharge.subscriptions.refunds import CHECK_AGAIN_MILLISECONDS
from ecomcharge.subscriptions.requests import SubscriptionRequest
from support.simulation.faults import FaultSchedule, FaultyDatabase, Killed, MovedClock, Work, current_work
from support.simulation.gateway import Accounts, Charge, Gateway

DAY: Final = 24 * HOUR
MOST_STEPS: Final = 60
SETTLING_STEPS: Final = 2_000
ZONES: Final = ("UTC", "Europe/Minsk", "Europe/Warsaw", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
LEASES: Final = (120_000, 120_000, 30_000, 5_000)  # milliseconds
TAKEN: Final = (base.SUCCESSFUL, REFUNDED, REFUND_FAILED, VOIDED)  # payments whose charge succeeded at the gateway


@dataclass
class Run:
    """One seeded run on a migrated database. ``racers`` are separate database objects, one for each worker."""

    seed: int
    database: Database
    racers: list[Database]
    shop_id: int
    clock: MovedClock = field(default_factory=MovedClock)
    real_clock: MovedClock = field(default_factory=MovedClock)
    names: dict[str, str] = field(default_factory=dict)  # by subscription id: its name in the random faults

    def __post_init__(self) -> None:
        self.chance = random.Random(f"run {self.seed}")
        self.fault_schedule = FaultSchedule(
            self.seed,
            self.real_clock,
            kill=self.chance.choice([0.0, 0.02, 0.1, 0.2]),
            pause=self.chance.choice([0.0, 0.0, 0.05, 0.15]),
            loss=self.chance.choice([0.0, 0.0, 0.1, 0.3]),
        )
        self.accounts = {
            account: Gateway(self.fault_schedule, self.clock, lambda: self.is_closed) for account in (FIRST_ACCOUNT, "2")
        }
        self.gateways = Accounts(self.accounts)
        self.is_closed = False
        zone = ZoneInfo(self.chance.choice(ZONES))
        lease = self.chance.choice(LEASES)
        self.workers = [self._billing(FaultyDatabase(racer, self.fault_schedule), zone, lease) for racer in self.racers]
        self.watcher = self._billing(self.database, zone, lease)
        self.id_generators = IdGenerators()
        self.under_way: dict[asyncio.Task[Any], Work] = {}

    def _billing(self, database: Database, zone: ZoneInfo, lease: int) -> Charging:
        event_recorder = EventRecorder("https://pay.example")
        return Charging(
            *(database, self.gateways, event_recorder, self.clock, zone, lease, self.real_clock), time_limit=self._limit_call
        )

    @contextlib.asynccontextmanager
    async def _limit_call(self, seconds: float) -> AsyncIterator[None]:
        """``asyncio.timeout`` by the real clock of the simulation."""
        work = current_work.get()
        assert work is not None
        work.call_ends_at = self.real_clock.now() + int(seconds * 1000)
        try:
            yield
        finally:
            work.call_ends_at = None

    async def run(self) -> None:
        """Run the simulation. Raises ``AssertionError`` if records disagree."""
        unit = self.chance.choice(["hour", "day", "week", "month", "month", "year"])
        for number in range(self.chance.randint(1, 5)):
            await self._subscribe(number, unit)
            self.gateways.chosen = self.chance.choice(list(self.accounts))
        for _ in range(MOST_STEPS):
            if not await self._step():
                break
        await self._finish_open_work()
        await self._check()

    async def _subscribe(self, number: int, unit: str) -> None:
        chance = self.chance
        trial = None
        if chance.random() < 0.4:
            trial = TrialPrice(
                chance.choice([0, 0, 199]), chance.randint(1, 3), chance.choice(["hour", "day", "month"]), chance.random() < 0.5
            )
        infinite = chance.random() < 0.7
        plan = PlanFields(
            title=f"Plan {number}",
            currency=chance.choice(["EUR", "JPY", "BHD"]),
            plan=Price(chance.randint(1, 99_999), chance.randint(1, 3), unit),
            trial=trial,
            language="en",
            infinite=infinite,
            billing_cycles=None if infinite else chance.randint(1, 6),
            number_payment_attempts=chance.randint(1, 4),
            prevent_payments_at_night=chance.random() < 0.3,
            test=True,
            visible_fields=(),
        )
        wanted = SubscriptionRequest(
            plan=plan,
            customer=CustomerFields(email=f"{self.seed}-{number}@shop.test"),
            card=CardDetails("0" * 16, None, None, 12, 2199),
            tracking_id=f"{self.seed}-{number}",
            device_id=None,
            return_url=None,
            notification_url="https://shop.example/hook" if chance.random() < 0.3 else None,
            additional_data=EMPTY_OBJECT,
            options=EMPTY_OBJECT,
        )
        work = Work(f"new {number}")
        creating = actions.create_subscription(
            self.workers[0], self.id_generators, self.shop_id, wanted, None, lambda each: each.id.encode()
        )
        await self._start(work, creating)
        for each in await self._all():
            if each.tracking_id == wanted.tracking_id:
                self.names[each.id] = str(number)

    async def _step(self) -> bool:
        """Advance to the next due time. Returns ``False`` if nothing will become due."""
        moment = await self._next_due()
        if moment is None and not self.under_way:
            return False
        late = self.chance.choices([0, self.chance.randint(1, HOUR), self.chance.randint(1, 40 * DAY)], [80, 15, 5])[0]
        self.clock.moment = max(self.clock.moment, (moment or 0) + late)
        await self._act_as_buyers_and_merchants()
        await self._act_as_operator()
        for work in list(self.under_way.values()):
            if self.chance.random() < 0.3:
                await self._resume(work)
        await self._work()
        return True

    async def _next_due(self) -> int | None:
        moments = [await store.next_due(self.database), await payments.next_check(self.database)]
        return min((moment for moment in moments if moment is not None), default=None)

    async def _work(self) -> None:
        self.real_clock.moment += self.chance.choice([1_000, 60_000, 600_000])
        await asyncio.gather(*(self._one_worker(worker) for worker in self.workers))

    async def _one_worker(self, worker: Charging) -> None:
        database = worker.database.inner  # type: ignore[attr-defined]

        async def claim(tx: Transaction) -> list[tuple[int, str]]:
            return await store.claim(tx, self.clock.now(), self.real_clock.now(), worker.new_lease(), 3)

        async def claim_checks(tx: Transaction) -> list[tuple[int, str]]:
            return await payments.claim_checks(tx, self.clock.now(), self.clock.now() + CHECK_AGAIN_MILLISECONDS, 3)

        for shop_id, subscription_id in await database.write(claim):
            name = self.names.get(subscription_id, "?")
            await self._start(Work(name), renewals.process_due_subscription(worker, shop_id, subscription_id))
        for shop_id, payment_id in await database.write(claim_checks):
            payment = await payments.find(database, shop_id, payment_id)
            assert payment is not None
            name = self.names.get(payment.subscription_id, "?")
            await self._start(Work(f"check {name}"), renewals.check_payment(worker, shop_id, payment_id))

    async def _start(self, work: Work, doing: Awaitable[Any]) -> None:
        """Start the work, and return when it ends or pauses."""

        async def live() -> None:
            current_work.set(work)
            try:
                await doing
            except Killed:
                pass
            except Unavailable:  # the response reports that nothing was done, or the worker retries
                assert work.has_no_database
                assert not (work.name.startswith("new") and work.is_charged), "503 after the card was charged"
            except ShopClosed:  # between the request and its commit
                assert not work.is_charged

        task = asyncio.create_task(live())
        self.under_way[task] = work
        await self._wait_until_paused(task, work)

    async def _resume(self, work: Work) -> None:
        task = next(task for task, each in self.under_way.items() if each is work)
        work.resume()
        await self._wait_until_paused(task, work)

    async def _wait_until_paused(self, task: asyncio.Task[Any], work: Work) -> None:
        waiting = asyncio.create_task(work.paused.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            del self.under_way[task]
            task.result()

    async def _act_as_buyers_and_merchants(self) -> None:
        """Pass, refuse or abandon 3-D Secure, cancel subscriptions, and record some outcomes twice, at random."""
        for order_id, charge, gateway in self.booked():
            if charge.status == base.INCOMPLETE and self.chance.random() < 0.5:
                gateway.pass_challenge(order_id, accepted=self.chance.random() < 0.7)
                self.clock.moment += 1
                payment = await payments.find(self.database, self.shop_id, order_id)
                if payment is not None and self.chance.random() < 0.7:  # otherwise the buyer closed the browser
                    result = await self.watcher.look_up(self.shop_id, payment)
                    subscription = await store.find(self.database, self.shop_id, payment.subscription_id)
                    assert subscription is not None
                    if result is not None and result.status in (base.SUCCESSFUL, base.FAILED):
                        await self.watcher.record_outcome(subscription, payment, result)
        for each in await self._all():
            if self.chance.random() < (0.1 if self.under_way else 0.02) and each.billing_state.state not in lifecycle.OVER:
                await actions.cancel_subscription(self.watcher, self.shop_id, each.id, "enough")
            live = await payments.live(self.database, self.shop_id, each.id, each.billing_state.period)
            if live is not None and self.chance.random() < 0.3:  # the same outcome arrives twice
                result = await self.watcher.look_up(self.shop_id, live)
                if result is not None and result.status != base.UNKNOWN:
                    await asyncio.gather(*(self.watcher.record_outcome(each, live, result) for _ in range(2)))

    def booked(self) -> list[tuple[str, Charge, Gateway]]:
        """Returns every charge that the gateway recorded, of both accounts."""
        return [(id, charge, gateway) for gateway in self.accounts.values() for id, charge in gateway.charges.items()]

    @property
    def taken(self) -> int:
        return sum(gateway.taken for gateway in self.accounts.values())

    async def _act_as_operator(self) -> None:
        """Choose another gateway account, close the shop, or open it again, at random."""
        if self.chance.random() < 0.1:
            self.gateways.chosen = self.chance.choice(list(self.accounts))
        if self.is_closed and self.chance.random() < 0.4:
            await closed_shops.open_shop(self.database, shop_id=self.shop_id)
            self.is_closed = False
        elif not self.is_closed and self.chance.random() < 0.02:
            await close_shop(self.database, self.real_clock.now(), shop_id=self.shop_id)
            self.is_closed = True

    async def _finish_open_work(self) -> None:
        """Stop all faults, and run until every charge and refund has ended."""
        self.fault_schedule.stop_faults()
        for gateway in self.accounts.values():
            gateway.is_reliable = True
        for work in list(self.under_way.values()):
            await self._resume(work)
        for _ in range(SETTLING_STEPS):
            moments = [moment async for moment in self._unsettled()]
            if not moments:
                return
            self.clock.moment = max(self.clock.moment, min(moments))
            self.real_clock.moment += 10 * 60_000  # past the leases of killed processes
            await self._work()
        raise AssertionError("charges are under way for ever")

    async def _unsettled(self) -> AsyncIterator[int]:
        """Yields the time of the next lookup of each payment that is not final."""
        for each in await self._all():
            for payment in await payments.of_subscription(self.database, self.shop_id, each.id):
                if payment.check_at is not None:
                    yield payment.check_at
                elif payment.status in LIVE:
                    assert each.billing_state.due_at is not None, f"{each.id} has a running charge without a lookup date"
                    yield each.billing_state.due_at
                else:
                    assert payment.status != REFUNDING, f"{each.id} waits for a refund without a date"

    async def _check(self) -> None:
        recorded = 0
        for each in await self._all():
            recorded += await self._check_one(each)
        assert recorded == self.taken, f"recorded {recorded}, taken {self.taken}"
        assert not any(gateway.sent_twice for gateway in self.accounts.values()), "a charge was sent twice"
        assert not any(gateway.sent_when_closed for gateway in self.accounts.values()), "a closed shop charged"
        assert all(charge.refunds <= 1 for _, charge, _ in self.booked()), "a charge was refunded twice"
        found = await audit(self.database, self.gateways, self.clock, shop_id=self.shop_id, recheck_seconds=0)
        assert not found, f"the audit says: {found}"

    async def _check_one(self, each: Subscription) -> int:
        """Check one subscription. Returns the sum of its payments, with those that the gateway refuses to refund."""
        billing_state, terms = each.billing_state, terms_of(each.plan, self.watcher.zone)
        found = await payments.of_subscription(self.database, self.shop_id, each.id)
        done = [payment for payment in found if payment.status == base.SUCCESSFUL]
        kept = [payment for payment in found if payment.status == REFUND_FAILED]
        booked: defaultdict[int, list[Charge]] = defaultdict(list)
        for payment in found:
            charge = self.accounts[each.gateway_account or FIRST_ACCOUNT].charges.get(payment.id)
            was_taken = charge is not None and charge.status == base.SUCCESSFUL
            assert was_taken == (payment.status in TAKEN), f"{each.id}: {payment.status} is {charge} in the gateway's charges"
            if charge is None or not was_taken:
                continue
            assert (charge.refunds == 1) == (payment.status == REFUNDED), f"{each.id}: {payment.status}, {charge.refunds} refunds"
            if payment.status == base.SUCCESSFUL:
                booked[payment.period].append(charge)
        assert all(len(charges) == 1 for charges in booked.values()), f"{each.id}: a period was charged twice"
        assert billing_state.paid_billing_cycles == len(done), (
            f"{each.id}: {billing_state.paid_billing_cycles} cycles of {len(done)}"
        )
        for payment in done:
            expected = terms.trial.amount if terms.trial and payment.period == 0 else terms.amount
            assert payment.amount == expected == booked[payment.period][0].order.amount
        if billing_state.state not in lifecycle.OVER and not self.is_closed:
            assert billing_state.due_at is not None, f"{each.id} is forgotten in state {billing_state.state}"
            assert billing_state.due_at <= self.clock.now() + 11 * 366 * DAY
        if billing_state.renew_at is not None:
            assert billing_state.renew_at == lifecycle.start_of(billing_state.period, billing_state, terms), (
                f"{each.id} lost its anchor"
            )
        assert terms.cycles is None or len(done) <= max(1, terms.cycles), f"{each.id} was charged beyond its cycles"
        refunds = Counter(payment.status for payment in found)
        await self._check_events(each, len(done), refunds[REFUNDED], refunds[REFUND_FAILED])
        return sum(payment.amount for payment in done + kept)

    async def _check_events(self, each: Subscription, paid: int, refunded: int, kept: int) -> None:
        rows = await self.database.rows(
            "SELECT sequence, type FROM events WHERE shop_id = :shop_id AND object_id = :id ORDER BY sequence",
            {"shop_id": self.shop_id, "id": each.id},
        )
        types = Counter(row[1] for row in rows)
        assert [row[0] for row in rows] == list(range(1, each.sequence + 1)), f"{each.id}: events {rows}"
        assert types[lifecycle.CREATED_EVENT] == min(1, paid)
        assert types[lifecycle.RENEWED_EVENT] == max(0, paid - 1)
        assert types[lifecycle.REFUNDED_EVENT] == refunded
        assert types[lifecycle.REFUND_FAILED_EVENT] == kept
        ends = types[lifecycle.CANCELED_EVENT] + types[lifecycle.FAILED_EVENT] + types[lifecycle.EXPIRED_EVENT]
        assert ends == (1 if each.billing_state.state in lifecycle.OVER else 0), (
            f"{each.id}: {types} in {each.billing_state.state}"
        )
        if each.notification_url is not None:
            webhook_rows = await self.database.rows(
                "SELECT sequence FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :id ORDER BY sequence",
                {"shop_id": self.shop_id, "id": each.id},
            )
            assert [row[0] for row in webhook_rows] == [row[0] for row in rows]

    async def _all(self) -> list[Subscription]:
        return await store.Subscriptions(self.database, self.shop_id, store.Filter()).select(1000)
