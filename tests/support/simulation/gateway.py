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
from ecomcharge.storage.database import Transaction
from support.simulation.faults import Fate, MovedClock, current_work

GATEWAY: Final = "begateway"
LATEST_BOOKING: Final = 20 * HOUR  # after which the gateway shows a charge whose answer was lost, at the latest
CHALLENGE_LIVES: Final = 30 * HOUR  # in which the gateway takes an answer to 3-D Secure, some hours longer than we wait


@dataclass
class Charge:
    order: Order
    status: str
    seen_from: int  # before which nobody who looks it up finds it
    answered_until: int
    refunds: int = 0


@dataclass
class Gateway:
    """A gateway with books of its own, that declines, errs, times out before and after charging, and answers late."""

    fate: Fate
    clock: MovedClock
    shop_is_closed: Callable[[], bool]
    name: str = GATEWAY
    is_calm: bool = False
    books: dict[str, Charge] = field(default_factory=dict)
    asked_twice: list[str] = field(default_factory=list)
    asked_when_closed: list[str] = field(default_factory=list)

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        work = current_work.get()
        assert work is not None
        if self.shop_is_closed():
            self.asked_when_closed.append(order.id)
        chance = self.fate.draw(f"charge {work.name}")
        await self.fate.step()
        if order.id in self.books:
            self.asked_twice.append(order.id)
        await asyncio.sleep(0)
        what = chance.choices(
            ["yes", "no", "error", "timeout, charged", "timeout, absent", "timeout, late", "challenge", "nobody there"],
            [60, 10, 6, 6, 5, 4, 6, 3],
        )[0]
        if self.is_calm:
            what = "yes"
        work.is_charged = True
        self.fate.perhaps_lose_database()
        seen_from, status = self.clock.now(), base.SUCCESSFUL
        if what in ("timeout, absent", "nobody there"):
            absent = what == "timeout, absent"
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE) if absent else Result(base.ERROR, base.ERROR_MESSAGE)
        if what == "timeout, late":
            seen_from += chance.randint(1, LATEST_BOOKING)
            status = chance.choice([base.SUCCESSFUL, base.SUCCESSFUL, base.FAILED])
        status = {"no": base.FAILED, "error": base.ERROR, "challenge": base.INCOMPLETE}.get(what, status)
        charge = Charge(order, status, seen_from, self.clock.now() + CHALLENGE_LIVES)
        self.books.setdefault(order.id, charge)
        await self.fate.step()
        if what.startswith("timeout"):
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        return _told(self.books[order.id])

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        work = current_work.get()
        chance = self.fate.draw(f"look up {work.name if work is not None else ''}")
        if not self.is_calm and chance.random() < 0.1:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        charge = self.books.get(order_id)
        if charge is None or self.clock.now() < charge.seen_from:
            return None
        if charge.status == base.INCOMPLETE and self.clock.now() > charge.answered_until:
            charge.status = base.FAILED
        return _told(charge)

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        charge = self.books[order_id]
        assert (charge.status, charge.order.amount) == (base.SUCCESSFUL, amount)
        await self.fate.step()
        if charge.refunds:
            return Result(base.SUCCESSFUL, "")
        chance = self.fate.draw(f"refund {order_id[-8:]}")
        never = random.Random(f"refundable {order_id[-8:]}").random() < 0.05
        what = chance.choices(["yes", "no", "timeout, refunded", "timeout"], [60, 10, 15, 15])[0]
        if never:
            return Result(base.FAILED, "can't be refunded")
        if what == "no":
            return Result(base.FAILED, "try later")
        if what == "timeout":
            return Result(base.UNKNOWN, "")
        charge.refunds += 1
        await self.fate.step()
        return Result(base.SUCCESSFUL if what == "yes" else base.UNKNOWN, "")

    def pass_challenge(self, order_id: str, *, accepted: bool) -> None:
        charge = self.books[order_id]
        if charge.status == base.INCOMPLETE and self.clock.now() <= charge.answered_until:
            charge.status = base.SUCCESSFUL if accepted else base.FAILED

    @property
    def taken(self) -> int:
        """What the buyers' banks paid, less what went back."""
        done = [charge for charge in self.books.values() if charge.status == base.SUCCESSFUL]
        return sum(charge.order.amount * (1 - charge.refunds) for charge in done)


def _told(charge: Charge) -> Result:
    card = Card(None, None, "visa", "0000", "4", None, None, None, None, f"token-{charge.order.shop_id}", None, 12, 2199)
    redirect_url = "https://gateway.example/challenge" if charge.status == base.INCOMPLETE else None
    return Result(charge.status, charge.status, charge.order.id, card, redirect_url)


class Accounts(GatewayRegistry):
    """A shop's accounts at the gateway, each with books of its own. Its new subscriptions go to the one that is chosen."""

    def __init__(self, accounts: Mapping[str, Gateway]) -> None:
        self.accounts = accounts
        self.chosen = FIRST_ACCOUNT
        self.sandbox = None  # type: ignore[assignment]

    async def assign(self, tx: Transaction, shop_id: int, *, test: bool) -> Assignment:
        return Assignment(GATEWAY, self.chosen)

    async def named(self, name: str, shop_id: int, account: str | None) -> Any:
        return self.accounts[account or FIRST_ACCOUNT]
