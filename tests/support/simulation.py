"""Years of many subscriptions in a moment: a gateway that fails in every way, workers that race and are killed anywhere.

Each run is drawn from a seed: plans, cards, faults, kills, cancels and how late the workers come. Real parts but for
the gateway and the clocks: the same billing, stores and database engines that run in production. At the end of a run
the gateway's books, kept outside, must agree with ours to the minor unit.

``python -m support.simulation --engine sqlite --runs 10000`` runs many; a seed that fails is printed, and
``--seed N --runs 1`` runs it again. What happens to a subscription is drawn from the seed, the subscription and how far
it has come, so two workers that race draw the same in either order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import logging
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

import structlog

from ecomcharge.customers.model import CustomerFields
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Order, Result
from ecomcharge.gateways.directory import Gateways
from ecomcharge.keys import MasterKey
from ecomcharge.payments import store as payments
from ecomcharge.payments.model import LIVE
from ecomcharge.plans.model import PlanFields, Price, TrialPrice, terms_of
from ecomcharge.shops.actions import create_shop
from ecomcharge.storage import open_database
from ecomcharge.storage.database import Database, Transaction, Unit
from ecomcharge.storage.migrate import migrate
from ecomcharge.subscriptions import actions, lifecycle, store
from ecomcharge.subscriptions.actions import Mints
from ecomcharge.subscriptions.billing import GIVE_UP_MILLISECONDS, Billing
from ecomcharge.subscriptions.model import EMPTY_OBJECT, Subscription, Wanted
from ecomcharge.subscriptions.schedule import HOUR
from ecomcharge.webhooks.actions import Teller

T = TypeVar("T")

DAY: Final = 24 * HOUR
BEGIN: Final = 1_767_225_600_000  # 2026-01-01
LATEST_ANSWER: Final = GIVE_UP_MILLISECONDS - 60_000  # of a gateway that books a charge after we stopped waiting
MOST_STEPS: Final = 60
SETTLING_STEPS: Final = 200
ZONES: Final = ("UTC", "Europe/Minsk", "Europe/Warsaw", "America/New_York", "Asia/Kolkata")


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@dataclass
class MovedClock:
    moment: int = BEGIN

    def now(self) -> int:
        return self.moment


_at_work_on: contextvars.ContextVar[str] = contextvars.ContextVar("at_work_on", default="")


@dataclass
class Fate:
    """What is drawn for a subscription, one after the other, whoever asks."""

    seed: int
    likely: float  # of a kill at any step
    drawn: Counter[str] = field(default_factory=Counter)
    kills: int = 0

    def draw(self, of: str) -> random.Random:
        self.drawn[of] += 1
        return random.Random(f"{self.seed} {of} {self.drawn[of]}")

    def perhaps_kill(self) -> None:
        of = _at_work_on.get()
        if of and self.draw(f"kill {of}").random() < self.likely:
            self.kills += 1
            raise Killed


@dataclass
class MortalDatabase:
    """A database that its user may not live to see answer: it dies before a commit, or after it and before it is told."""

    inner: Database
    fate: Fate

    async def write(self, unit: Unit[T]) -> T:
        self.fate.perhaps_kill()
        result = await self.inner.write(unit)
        self.fate.perhaps_kill()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Charge:
    order: Order
    status: str
    seen_from: int  # before which nobody who looks it up finds it


@dataclass
class Gateway:
    """A gateway with books of its own, that declines, errs, times out before and after charging, and answers late."""

    fate: Fate
    clock: MovedClock
    name: str = "sandbox"
    books: dict[str, Charge] = field(default_factory=dict)
    asked_twice: list[str] = field(default_factory=list)

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        self.fate.perhaps_kill()
        if order.id in self.books:
            self.asked_twice.append(order.id)
        chance = self.fate.draw(f"charge {_at_work_on.get()}")
        await asyncio.sleep(0)
        what = chance.choices(
            ["yes", "no", "error", "timeout, charged", "timeout, absent", "timeout, late", "challenge", "nobody there"],
            [60, 10, 6, 6, 5, 4, 6, 3],
        )[0]
        seen_from, status = self.clock.now(), base.SUCCESSFUL
        if what in ("timeout, absent", "nobody there"):
            absent = what == "timeout, absent"
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE) if absent else Result(base.ERROR, base.ERROR_MESSAGE)
        if what == "timeout, late":
            seen_from += chance.randint(1, LATEST_ANSWER)
            status = chance.choice([base.SUCCESSFUL, base.SUCCESSFUL, base.FAILED])
        status = {"no": base.FAILED, "error": base.ERROR, "challenge": base.INCOMPLETE}.get(what, status)
        self.books.setdefault(order.id, Charge(order, status, seen_from))
        self.fate.perhaps_kill()
        if what.startswith("timeout"):
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        return _told(self.books[order.id])

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        chance = self.fate.draw(f"look up {_at_work_on.get()}")
        if chance.random() < 0.1:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        charge = self.books.get(order_id)
        return None if charge is None or self.clock.now() < charge.seen_from else _told(charge)

    def pass_challenge(self, order_id: str, *, accepted: bool) -> None:
        charge = self.books[order_id]
        if charge.status == base.INCOMPLETE:
            charge.status = base.SUCCESSFUL if accepted else base.FAILED

    @property
    def taken(self) -> int:
        return sum(charge.order.amount for charge in self.books.values() if charge.status == base.SUCCESSFUL)


def _told(charge: Charge) -> Result:
    card = Card(None, None, "visa", "0000", "4", None, None, None, None, f"token-{charge.order.shop_id}", None, 12, 2199)
    redirect_url = "https://gateway.example/challenge" if charge.status == base.INCOMPLETE else None
    return Result(charge.status, charge.status, charge.order.id, card, redirect_url)


class OneGateway(Gateways):
    def __init__(self, gateway: Gateway) -> None:
        self.sandbox = gateway  # type: ignore[assignment]

    async def name_for(self, tx: Transaction, shop_id: int, *, test: bool) -> str:
        return "sandbox"

    async def named(self, name: str, shop_id: int) -> Any:
        return self.sandbox


@dataclass
class Run:
    """One seeded run on a database that has been migrated. ``racers`` are databases of their own, one for each worker."""

    seed: int
    database: Database
    racers: list[Database]
    shop_id: int
    clock: MovedClock = field(default_factory=MovedClock)
    real_clock: MovedClock = field(default_factory=MovedClock)
    names: dict[str, str] = field(default_factory=dict)  # by subscription id: what fate calls it

    def __post_init__(self) -> None:
        self.chance = random.Random(f"run {self.seed}")
        self.fate = Fate(self.seed, self.chance.choice([0.0, 0.02, 0.1, 0.3]))
        self.gateway = Gateway(self.fate, self.clock)
        zone = ZoneInfo(self.chance.choice(ZONES))
        self.workers = [self._billing(MortalDatabase(racer, self.fate), zone) for racer in self.racers]
        self.watcher = self._billing(self.database, zone)
        self.mints = Mints()

    def _billing(self, database: Database, zone: ZoneInfo) -> Billing:
        teller = Teller("https://pay.example")
        return Billing(database, OneGateway(self.gateway), teller, self.clock, zone, real_clock=self.real_clock)

    async def run(self) -> None:
        """Raises ``AssertionError`` where anything does not balance."""
        unit = self.chance.choice(["hour", "day", "week", "month", "month", "year"])
        for number in range(self.chance.randint(1, 5)):
            await self._subscribe(number, unit)
        for _ in range(MOST_STEPS):
            if not await self._step():
                break
        self.fate.likely = 0.0
        await self._settle()
        await self._check()

    async def _subscribe(self, number: int, unit: str) -> None:
        chance = self.chance
        trial = None
        if chance.random() < 0.4:
            trial = TrialPrice(
                chance.choice([0, 0, 199]), chance.randint(1, 3), chance.choice(["hour", "day"]), chance.random() < 0.5
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
        wanted = Wanted(
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
        await self._mortally(
            f"new {number}",
            actions.create_subscription(self.workers[0], self.mints, self.shop_id, wanted, None, lambda each: each.id.encode()),
        )
        for each in await self._all():
            if each.tracking_id == wanted.tracking_id:
                self.names[each.id] = str(number)

    async def _step(self) -> bool:
        """On to the next moment when something is due; ``False`` when nothing ever will be."""
        moment = await store.next_due(self.database)
        if moment is None:
            return False
        late = self.chance.choices([0, self.chance.randint(1, HOUR), self.chance.randint(1, 40 * DAY)], [80, 15, 5])[0]
        self.clock.moment = max(self.clock.moment, moment + late)
        await self._buyers_and_merchants()
        await self._work()
        return True

    async def _work(self) -> None:
        self.real_clock.moment += 10 * 60_000  # past every lease of those that were killed
        await asyncio.gather(*(self._one_worker(worker) for worker in self.workers))

    async def _one_worker(self, worker: Billing) -> None:
        async def claim(tx: Transaction) -> list[tuple[int, str]]:
            return await store.claim(tx, self.clock.now(), self.real_clock.now(), worker.lease(), 3)

        claimed = await worker.database.inner.write(claim)  # type: ignore[attr-defined]
        for shop_id, subscription_id in claimed:
            await self._mortally(self.names.get(subscription_id, "?"), worker.work(shop_id, subscription_id))

    async def _mortally(self, name: str, doing: Awaitable[Any]) -> Any:
        token = _at_work_on.set(name)
        try:
            return await doing
        except Killed:
            return None
        finally:
            _at_work_on.reset(token)

    async def _buyers_and_merchants(self) -> None:
        """Some pass 3-D Secure, some refuse, some never come back; now and then one is canceled, or told twice."""
        for each in await self._all():
            if self.chance.random() < 0.02 and each.standing.state not in lifecycle.OVER:
                await actions.cancel_subscription(self.watcher, self.shop_id, each.id, "enough")
            live = await payments.live(self.database, self.shop_id, each.id, each.standing.period)
            if live is not None and live.status == base.INCOMPLETE and self.chance.random() < 0.6:
                self.gateway.pass_challenge(live.id, accepted=self.chance.random() < 0.7)
                self.clock.moment += 1
                if self.chance.random() < 0.7:  # else the buyer's browser never came back
                    await actions.answer_challenge(self.watcher, self.shop_id, live, accepted=None)
            if live is not None and self.chance.random() < 0.3:  # the same outcome arrives by two ways
                result = await self.watcher.look_up(self.shop_id, live)
                if result is not None and result.status != base.UNKNOWN:
                    await asyncio.gather(*(self.watcher.settle(each, live, result) for _ in range(2)))

    async def _settle(self) -> None:
        """Nobody is killed any more: what is under way comes to its end."""
        for _ in range(SETTLING_STEPS):
            under_way = [each for each in await self._all() if await self._has_live_payment(each)]
            if not under_way:
                return
            moments = [each.standing.due_at for each in under_way if each.standing.due_at is not None]
            assert moments, f"{under_way[0].id} has a charge under way, and nobody will look for it"
            self.clock.moment = max(self.clock.moment, min(moments))
            await self._work()
        raise AssertionError("charges are under way for ever")

    async def _has_live_payment(self, subscription: Subscription) -> bool:
        found = await payments.of_subscription(self.database, self.shop_id, subscription.id)
        canceled_challenge = subscription.standing.state == lifecycle.CANCELED and subscription.standing.due_at is None
        live = [each for each in found if each.status in LIVE]
        return bool(live) and not (canceled_challenge and all(each.status == base.INCOMPLETE for each in live))

    async def _check(self) -> None:
        recorded = 0
        for each in await self._all():
            recorded += await self._check_one(each)
        assert recorded == self.gateway.taken, f"recorded {recorded}, taken {self.gateway.taken}"
        assert self.gateway.asked_twice == [], "a charge was sent twice"

    async def _check_one(self, each: Subscription) -> int:
        """What its payments sum up to."""
        standing, terms = each.standing, terms_of(each.plan, self.watcher.zone)
        found = await payments.of_subscription(self.database, self.shop_id, each.id)
        done = [payment for payment in found if payment.status == base.SUCCESSFUL]
        booked: defaultdict[int, list[Charge]] = defaultdict(list)
        for payment in found:
            if payment.id in self.gateway.books and self.gateway.books[payment.id].status == base.SUCCESSFUL:
                booked[payment.period].append(self.gateway.books[payment.id])
        assert all(len(charges) == 1 for charges in booked.values()), f"{each.id}: a period was charged twice"
        assert sorted(booked) == sorted(payment.period for payment in done), f"{each.id}: yes was not counted exactly once"
        assert standing.paid_billing_cycles == len(done), f"{each.id}: {standing.paid_billing_cycles} cycles of {len(done)}"
        for payment in done:
            expected = terms.trial.amount if terms.trial and payment.period == 0 else terms.amount
            assert payment.amount == expected == booked[payment.period][0].order.amount
        if standing.state not in lifecycle.OVER:
            assert standing.due_at is not None, f"{each.id} is forgotten in state {standing.state}"
            assert standing.due_at <= self.clock.now() + 11 * 366 * DAY
        if standing.renew_at is not None:
            assert standing.renew_at == lifecycle.start_of(standing.period, standing, terms), f"{each.id} lost its anchor"
        assert terms.cycles is None or len(done) <= max(1, terms.cycles), f"{each.id} was charged beyond its cycles"
        await self._check_events(each, len(done))
        return sum(payment.amount for payment in done)

    async def _check_events(self, each: Subscription, paid: int) -> None:
        rows = await self.database.rows(
            "SELECT sequence, type FROM events WHERE shop_id = :shop_id AND object_id = :id ORDER BY sequence",
            {"shop_id": self.shop_id, "id": each.id},
        )
        types = Counter(row[1] for row in rows)
        assert [row[0] for row in rows] == list(range(1, each.sequence + 1)), f"{each.id}: events {rows}"
        assert types[lifecycle.CREATED_EVENT] == min(1, paid)
        assert types[lifecycle.RENEWED_EVENT] == max(0, paid - 1)
        ends = types[lifecycle.CANCELED_EVENT] + types[lifecycle.FAILED_EVENT] + types[lifecycle.EXPIRED_EVENT]
        assert ends == (1 if each.standing.state in lifecycle.OVER else 0), f"{each.id}: {types} in {each.standing.state}"
        if each.notification_url is not None:
            told = await self.database.rows(
                "SELECT sequence FROM webhooks WHERE shop_id = :shop_id AND subscription_id = :id ORDER BY sequence",
                {"shop_id": self.shop_id, "id": each.id},
            )
            assert [row[0] for row in told] == [row[0] for row in rows]

    async def _all(self) -> list[Subscription]:
        return await store.Subscriptions(self.database, self.shop_id, store.Filter()).after("", 1000)


@dataclass
class Account:
    """Of many runs."""

    runs: int = 0
    charges: int = 0
    taken: int = 0
    kills: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)


async def simulate(url: str, seeds: range, progress: Callable[[Account], None] | None = None) -> Account:
    """Run every seed on one database, and go on after those that fail."""
    account = Account()
    master_key = MasterKey(bytes(32))
    databases = [await open_database(url, postgres_connections=5) for _ in range(3)]
    try:
        await migrate(databases[0])
        for seed in seeds:
            credentials = await create_shop(databases[0], master_key, BEGIN, name=f"Run {seed}")
            racers = databases[1:] if seed % 4 == 0 else [databases[1], databases[1]] if seed % 2 else [databases[1]]
            run = Run(seed, databases[0], racers, credentials.shop_id)
            try:
                await run.run()
            except Exception as fault:  # not only what the account tells
                account.failed.append((seed, f"{type(fault).__name__}: {fault}"))
            account.runs += 1
            account.charges += len(run.gateway.books)
            account.taken += run.gateway.taken
            account.kills += run.fate.kills
            await _forget(databases[0])
            if progress is not None:
                progress(account)
    finally:
        for database in databases:
            await database.close()
    return account


async def _forget(database: Database) -> None:
    """What a run leaves behind is not due for the next one."""

    async def unit(tx: Transaction) -> None:
        await tx.run("UPDATE subscriptions SET due_at = NULL WHERE due_at IS NOT NULL", {})

    await database.write(unit)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    started = time.monotonic()

    def progress(account: Account) -> None:
        if account.runs % 100 == 0:
            print(
                f"{account.runs} runs, {account.charges} charges, {account.kills} kills, {time.monotonic() - started:.0f} s",
                flush=True,
            )

    seeds = range(options.seed, options.seed + options.runs)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if options.engine == "sqlite":
            account = asyncio.run(simulate(f"sqlite:///{folder}/simulation.db", seeds, progress))
        else:
            from support.postgres import PostgresServer

            with PostgresServer() as postgres:
                account = asyncio.run(simulate(postgres.create_database("simulation"), seeds, progress))
    for seed, fault in account.failed:
        print(f"seed {seed}: {fault}")
    print(
        f"{account.runs} runs on {options.engine}: {account.charges} charges, {account.taken} minor units,"
        f" {account.kills} kills, {len(account.failed)} failed, {time.monotonic() - started:.0f} s"
    )
    return 1 if account.failed else 0


if __name__ == "__main__":
    sys.exit(main())
