"""The worker: does what is due, charges and webhooks, as it becomes due. Any number may run; leases keep them apart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.payments import store as payments
from ecomcharge.sandbox.moves import ClockMove
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.subscriptions import renewals
from ecomcharge.subscriptions import store as subscriptions
from ecomcharge.subscriptions.charging import LOOK_AGAIN_MILLISECONDS, Charging
from ecomcharge.subscriptions.refunds import CHECK_AGAIN_MILLISECONDS
from ecomcharge.webhooks import store as webhooks
from ecomcharge.webhooks.delivery import Delivery

log = structlog.get_logger()

AT_ONCE: Final = 128  # charges under way in one process
CHECKS_AT_ONCE: Final = 32  # refunds and late look-ups, which do not wait behind charges
POLL_SECONDS: Final = 0.5
BREATH_SECONDS: Final = 0.01
RETRY_SECONDS: Final = 1.0


@dataclass
class BillingWorker:
    database: Database
    charging: Charging
    delivery: Delivery
    clock: Clock
    done: int = 0
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)  # charges
    _checks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stopped: asyncio.Event) -> None:
        """Until it is stopped; then what is under way comes to its end."""
        while not stopped.is_set():
            was_full = not self._has_room()
            try:
                started = await self.round(await self.clock.read())
            except EcomchargeError as error:
                log.warning("worker waits", reason=error.code)
                started = 0
                await _wait(stopped, RETRY_SECONDS)
            except Exception:  # whatever it was, the next round tries again
                log.exception("worker failed")
                started = 0
                await _wait(stopped, RETRY_SECONDS)
            rest = min(POLL_SECONDS, self.delivery.backoff_seconds() or POLL_SECONDS)
            if not self._has_room():
                await asyncio.wait(self._under_way, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            elif not started and not was_full:  # otherwise charges ended during the round, and more may be due
                await _wait(stopped, rest)
            else:
                await asyncio.sleep(0)
        await self.finish()

    async def round(self, now: int) -> int:
        """Begin what is due; how much."""
        return await self._begin_checks(now) + await self._begin_charges(now) + await self._begin_deliveries(now)

    async def do_everything_due(self) -> int:
        """Work until nothing is due now and no charge is under way in any process; return the time of the clock then."""
        while True:
            now = await self.clock.read()
            started = await self.round(now)
            if self._under_way or self._checks or not self.delivery.is_idle:
                await self.finish()
            elif not started:
                if not await self._is_due(now) and not await self._is_charged_elsewhere(now):
                    return now
                await asyncio.sleep(BREATH_SECONDS)

    async def advance(self, move: ClockMove) -> None:
        """Move the sandbox clock to the target of ``move``; everything due on the way happens on the way, in order."""
        with self.delivery.skipping_unreachable_receivers(move.target):
            while True:
                now = await self.do_everything_due()
                moment = await self._next_due(now)
                if moment is None or moment > move.target:
                    break
                await move.move_to(moment)
            await move.move_to(move.target)
            await self.do_everything_due()

    async def _begin_charges(self, now: int) -> int:
        if not self._has_room() or not await subscriptions.is_due(self.database, now):
            return 0
        room = AT_ONCE - len(self._under_way)
        real_now, leased_until = self.charging.real_clock.now(), self.charging.new_lease()

        async def unit(tx: Transaction) -> list[tuple[int, str]]:
            return await subscriptions.claim(tx, now, real_now, leased_until, room)

        claimed = await self.database.write(unit)
        for shop_id, subscription_id in claimed:
            _start(self._charge(shop_id, subscription_id), self._under_way)
        return len(claimed)

    async def _begin_checks(self, now: int) -> int:
        """Payments that are looked up once more, and refunds."""
        room = CHECKS_AT_ONCE - len(self._checks)
        if not room or not await payments.is_check_due(self.database, now):
            return 0

        async def unit(tx: Transaction) -> list[tuple[int, str]]:
            return await payments.claim_checks(tx, now, now + CHECK_AGAIN_MILLISECONDS, room)

        claimed = await self.database.write(unit)
        for shop_id, payment_id in claimed:
            _start(self._check(shop_id, payment_id), self._checks)
        return len(claimed)

    def _has_room(self) -> bool:
        """For so many charges that it is worth a commit to claim them."""
        return len(self._under_way) <= AT_ONCE // 2

    async def _charge(self, shop_id: int, subscription_id: str) -> None:
        try:
            await renewals.process_due_subscription(self.charging, shop_id, subscription_id)
            self.done += 1
        except EcomchargeError as error:
            log.warning("subscription put off", shop=shop_id, subscription=subscription_id, reason=error.code, why=error.message)
        except Exception:  # its lease runs out, and then it is tried again
            log.exception("subscription could not be handled", shop=shop_id, subscription=subscription_id)

    async def _check(self, shop_id: int, payment_id: str) -> None:
        try:
            await renewals.check_payment(self.charging, shop_id, payment_id)
        except EcomchargeError as error:
            log.warning("payment put off", shop=shop_id, payment=payment_id, reason=error.code, why=error.message)
        except Exception:  # it stays due
            log.exception("payment could not be checked", shop=shop_id, payment=payment_id)

    async def _begin_deliveries(self, now: int) -> int:
        if not await webhooks.is_due(self.database, now):
            return 0
        return await self.delivery.round(now)

    async def _is_due(self, now: int) -> bool:
        if await webhooks.is_next_and_due(self.database, now):
            return True
        moment = await self._next_due(now)
        return moment is not None and moment <= now

    async def _is_charged_elsewhere(self, now: int) -> bool:
        """By another process, or for a request: while it is, what is due next is to look again in a minute."""
        return await subscriptions.is_held(self.database, now + LOOK_AGAIN_MILLISECONDS, self.charging.real_clock.now())

    async def _next_due(self, now: int) -> int | None:
        moments = [
            await subscriptions.next_due(self.database),
            await payments.next_check(self.database),
            await webhooks.next_due(self.database, now),
        ]
        return min((moment for moment in moments if moment is not None), default=None)

    async def finish(self) -> None:
        """Return when no charge, check or webhook is under way."""
        while tasks := self._under_way | self._checks:
            await asyncio.wait(tasks)
        await self.delivery.wait()


def _start(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _wait(stopped: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()
