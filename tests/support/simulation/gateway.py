"""A gateway that declines, errs and loses answers, and keeps its own records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ecomcharge.base.calendar import HOUR
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Order, Result
from ecomcharge.gateways.registry import Assignment, GatewayRegistry
from ecomcharge.shops.model import FIRST_ACCOUNT
from ecomcharge.storage.database import Database, Transaction
from support.simulation.faults import FaultSchedule, MovedClock, current_work

GATEWAY: Final = "begateway"
LATEST_BOOKING: Final = 20 * HOUR  # maximum delay until a lookup finds a charge whose response was lost
CHALLENGE_LIVES: Final = 30 * HOUR  # time limit of the gateway for 3-D Secure, some hours longer than ours


@dataclass
class Charge:
    order: Order
    status: str
    visible_from: int  # lookups before this time do not find it
    answered_until: int
    refunds: int = 0


@dataclass
class Gateway:
    """A gateway with its own records that declines, returns errors, times out before or after a charge, and responds late."""

    fault_schedule: FaultSchedule
    clock: MovedClock
    shop_is_closed: Callable[[], bool]
    name: str = GATEWAY
    is_reliable: bool = False
    charges: dict[str, Charge] = field(default_factory=dict)
    sent_twice: list[str] = field(default_factory=list)
    sent_when_closed: list[str] = field(default_factory=list)

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        work = current_work.get()
        assert work is not None
        if self.shop_is_closed():
            self.sent_when_closed.append(order.id)
        chance = self.fault_schedule.draw(f"charge {work.name}")
        await self.fault_schedule.step()
        if order.id in self.charges:
            self.sent_twice.append(order.id)
        await asyncio.sleep(0)
        what = chance.choices(
            ["yes", "no", "error", "timeout, charged", "timeout, absent", "timeout, late", "challenge", "connection refused"],
            [60, 10, 6, 6, 5, 4, 6, 3],
        )[0]
        if self.is_reliable:
            what = "yes"
        work.is_charged = True
        self.fault_schedule.maybe_lose_database()
        visible_from, status = self.clock.now(), base.SUCCESSFUL
        if what in ("timeout, absent", "connection refused"):
            absent = what == "timeout, absent"
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE) if absent else Result(base.ERROR, base.ERROR_MESSAGE)
        if what == "timeout, late":
            visible_from += chance.randint(1, LATEST_BOOKING)
            status = chance.choice([base.SUCCESSFUL, base.SUCCESSFUL, base.FAILED])
        status = {"no": base.FAILED, "error": base.ERROR, "challenge": base.INCOMPLETE}.get(what, status)
        charge = Charge(order, status, visible_from, self.clock.now() + CHALLENGE_LIVES)
        self.charges.setdefault(order.id, charge)
        await self.fault_schedule.step()
        if what.startswith("timeout"):
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        return _to_result(self.charges[order.id])

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        work = current_work.get()
        chance = self.fault_schedule.draw(f"look up {work.name if work is not None else ''}")
        if not self.is_reliable and chance.random() < 0.1:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        charge = self.charges.get(order_id)
        if charge is None or self.clock.now() < charge.visible_from:
            return None
        if charge.status == base.INCOMPLETE and self.clock.now() > charge.answered_until:
            charge.status = base.FAILED
        return _to_result(charge)

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        charge = self.charges[order_id]
        assert (charge.status, charge.order.amount) == (base.SUCCESSFUL, amount)
        await self.fault_schedule.step()
        if charge.refunds:
            return Result(base.SUCCESSFUL, "")
        chance = self.fault_schedule.draw(f"refund {order_id[-8:]}")
        never = random.Random(f"refundable {order_id[-8:]}").random() < 0.05
        what = chance.choices(["yes", "no", "timeout, refunded", "timeout"], [60, 10, 15, 15])[0]
        if never:
            return Result(base.FAILED, "can't be refunded")
        if what == "no":
            return Result(base.FAILED, "try later")
        if what == "timeout":
            return Result(base.UNKNOWN, "")
        charge.refunds += 1
        await self.fault_schedule.step()
        return Result(base.SUCCESSFUL if what == "yes" else base.UNKNOWN, "")

    def pass_challenge(self, order_id: str, *, accepted: bool) -> None:
        charge = self.charges[order_id]
        if charge.status == base.INCOMPLETE and self.clock.now() <= charge.answered_until:
            charge.status = base.SUCCESSFUL if accepted else base.FAILED

    @property
    def taken(self) -> int:
        """The sum of successful charges less refunds."""
        done = [charge for charge in self.charges.values() if charge.status == base.SUCCESSFUL]
        return sum(charge.order.amount * (1 - charge.refunds) for charge in done)


def _to_result(charge: Charge) -> Result:
    card = Card(None, None, "visa", "0000", "4", None, None, None, None, f"token-{charge.order.shop_id}", None, 12, 2199)
    redirect_url = "https://gateway.example/challenge" if charge.status == base.INCOMPLETE else None
    return Result(charge.status, charge.status, charge.order.id, card, redirect_url)


class Accounts(GatewayRegistry):
    """A shop's accounts at the gateway, each with its own records. New subscriptions use the chosen account."""

    def __init__(self, accounts: Mapping[str, Gateway]) -> None:
        self.accounts = accounts
        self.chosen = FIRST_ACCOUNT
        self.sandbox = None  # type: ignore[assignment]

    async def assign(self, reader: Database | Transaction, shop_id: int, *, test: bool) -> Assignment:
        return Assignment(GATEWAY, self.chosen)

    async def named(self, name: str, shop_id: int, account: str | None) -> Any:
        return self.accounts[account or FIRST_ACCOUNT]
