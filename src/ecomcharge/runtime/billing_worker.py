"""The billing worker: makes due charges, checks and webhook deliveries. Any number may run; leases separate their work."""

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

AT_ONCE: Final = 128  # charges in progress in one process
CHECKS_AT_ONCE: Final = 32  # refunds and late look-ups in progress; they do not wait for charges
POLL_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 5.0  # on a cluster, where each look for due work asks all nodes
PAUSE_SECONDS: Final = 0.01
RETRY_SECONDS: Final = 1.0


@dataclass
class BillingWorker:
    """Claims due work from the database and does it. ``done`` counts the processed subscriptions."""

    database: Database
    charging: Charging
    delivery: Delivery
    clock: Clock
    done: int = 0
    _charges: set[asyncio.Task[None]] = field(default_factory=set)  # charges
    _checks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, stopped: asyncio.Event) -> None:
        """Work until it is stopped; then finish the work in progress."""
        idle_rounds = 0
        while not stopped.is_set():
            was_full, pause = not self._has_room(), POLL_SECONDS
            try:
                now = await self.clock.read()
                started = await self.round(now)
                idle_rounds = 0 if started or self._is_working else idle_rounds + 1
                if idle_rounds > 1 and self.database.is_distributed:
                    pause = pause_seconds(idle_rounds, now, await self._next_due(now))
            except EcomchargeError as error:
                log.warning("worker waits", reason=error.code)
                started = 0
                await _wait(stopped, RETRY_SECONDS)
            except Exception:  # the next round tries again
                log.exception("worker failed")
                started = 0
                await _wait(stopped, RETRY_SECONDS)
            rest = min(pause, self.delivery.backoff_seconds() or pause)
            if not self._has_room():
                await asyncio.wait(self._charges, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            elif not started and not was_full:  # otherwise charges ended during the round, and more charges may be due
                await _wait(stopped, rest)
            else:
                await asyncio.sleep(0)
        await self.finish()

    async def round(self, now: int) -> int:
        """Start due work; return the number of started charges, checks and deliveries."""
        return await self._start_checks(now) + await self._start_charges(now) + await self._start_deliveries(now)

    async def do_everything_due(self) -> int:
        """Work until nothing is due and no process has a charge in progress; return the time of the clock then."""
        while True:
            now = await self.clock.read()
            started = await self.round(now)
            if self._is_working:
                await self.finish()
            elif not started:
                if not await self._is_due(now) and not await self._is_charged_elsewhere(now):
                    return now
                await asyncio.sleep(PAUSE_SECONDS)

    async def advance(self, move: ClockMove) -> None:
        """Move the sandbox clock to the target of ``move``, and do all work that becomes due before it, in order."""
        with self.delivery.skipping_unreachable_receivers(move.target):
            while True:
                now = await self.do_everything_due()
                moment = await self._next_due(now)
                if moment is None or moment > move.target:
                    break
                await move.move_to(moment)
            await move.move_to(move.target)
            await self.do_everything_due()

    async def _start_charges(self, now: int) -> int:
        if not self._has_room() or not await subscriptions.is_due(self.database, now):
            return 0
        room = AT_ONCE - len(self._charges)
        real_now, leased_until = self.charging.real_clock.now(), self.charging.new_lease()

        async def unit(tx: Transaction) -> list[tuple[int, str]]:
            return await subscriptions.claim(tx, now, real_now, leased_until, room)

        claimed = await self.database.write(unit)
        for shop_id, subscription_id in claimed:
            _start(self._charge(shop_id, subscription_id), self._charges)
        return len(claimed)

    async def _start_checks(self, now: int) -> int:
        """Start refunds, and look-ups of payments that ended without success."""
        room = CHECKS_AT_ONCE - len(self._checks)
        if not room or not await payments.is_check_due(self.database, now):
            return 0

        async def unit(tx: Transaction) -> list[tuple[int, str]]:
            return await payments.claim_checks(tx, now, now + CHECK_AGAIN_MILLISECONDS, room)

        claimed = await self.database.write(unit)
        for shop_id, payment_id in claimed:
            _start(self._check(shop_id, payment_id), self._checks)
        return len(claimed)

    @property
    def _is_working(self) -> bool:
        """Whether a charge, a check or a delivery is in progress."""
        return bool(self._charges or self._checks) or not self.delivery.is_idle

    def _has_room(self) -> bool:
        """Whether there is room for enough charges to be worth the commit that claims them."""
        return len(self._charges) <= AT_ONCE // 2

    async def _charge(self, shop_id: int, subscription_id: str) -> None:
        try:
            await renewals.process_due_subscription(self.charging, shop_id, subscription_id)
            self.done += 1
        except EcomchargeError as error:
            log.warning("subscription put off", shop=shop_id, subscription=subscription_id, reason=error.code, why=error.message)
        except Exception:  # it is tried again when its lease ends
            log.exception("subscription could not be handled", shop=shop_id, subscription=subscription_id)

    async def _check(self, shop_id: int, payment_id: str) -> None:
        try:
            await renewals.check_payment(self.charging, shop_id, payment_id)
        except EcomchargeError as error:
            log.warning("payment put off", shop=shop_id, payment=payment_id, reason=error.code, why=error.message)
        except Exception:  # it becomes due again
            log.exception("payment could not be checked", shop=shop_id, payment=payment_id)

    async def _start_deliveries(self, now: int) -> int:
        if not await webhooks.is_due(self.database, now):
            return 0
        return await self.delivery.round(now)

    async def _is_due(self, now: int) -> bool:
        if await webhooks.is_next_and_due(self.database, now):
            return True
        moment = await self._next_due(now)
        return moment is not None and moment <= now

    async def _is_charged_elsewhere(self, now: int) -> bool:
        """Whether another process or a request is charging a due subscription. During a charge the due date is a minute later."""
        return await subscriptions.is_held(self.database, now + LOOK_AGAIN_MILLISECONDS, self.charging.real_clock.now())

    async def _next_due(self, now: int) -> int | None:
        moments = [
            await subscriptions.next_due(self.database),
            await payments.next_check(self.database),
            await webhooks.next_due(self.database, now),
        ]
        return min((moment for moment in moments if moment is not None), default=None)

    async def finish(self) -> None:
        """Return when no charge, check or delivery is in progress."""
        while tasks := self._charges | self._checks:
            await asyncio.wait(tasks)
        await self.delivery.wait()


def pause_seconds(idle_rounds: int, now: int, next_due: int | None) -> float:
    """The pause after rounds without work: twice as long after each, and never beyond the next due time.

    ``now`` and ``next_due`` are in milliseconds. Work that is due but leased ends the longer pauses.
    """
    longest = min(LONGEST_PAUSE_SECONDS, POLL_SECONDS * 2.0 ** min(idle_rounds - 1, 10))
    if next_due is None:
        return longest
    return min(longest, (next_due - now) / 1000) if next_due > now else POLL_SECONDS


def _start(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _wait(stopped: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()
