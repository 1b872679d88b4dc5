"""The sandbox gateway. It uses no network: the card decides the outcome. It has its own ledger, as a bank does.

The published test cards behave as published [P]. Our own test cards cover cases that no published one covers [D].
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from ecomcharge.base.calendar import HOUR
from ecomcharge.gateways import base
from ecomcharge.gateways.base import Card, CardDetails, Order, Result
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import execute
from ecomcharge.storage.statements import Insert, PointRead

NAME: Final = "sandbox"
SLOW_SECONDS: Final = 3.0
CHALLENGE_CLOSES: Final = 25 * HOUR  # the bank closes its page some time after the subscription stops waiting for the buyer [D]

SUCCESSFUL: Final = "successful"
CHALLENGE: Final = "challenge"  # requires 3-D Secure
FAILED: Final = "failed"
ERROR: Final = "error"
TIMEOUT_CHARGED: Final = "timeout, charged"  # no answer, but the charge was made
TIMEOUT_ABSENT: Final = "timeout, absent"  # no answer, and the gateway never received the charge
RENEWAL_TIMEOUT: Final = "renewal times out, charged"
RENEWALS_FAIL: Final = "renewals fail"
SECOND_RENEWAL_FAILS: Final = "second renewal fails once"
RENEWAL_FAILS_ONCE: Final = "renewal fails once"
RENEWALS_ERR: Final = "renewals err"
RENEWAL_ERRS_ONCE: Final = "renewal errs once"
SLOW: Final = "slow"

TEST_CARDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("4200000000000000", "4012000000001006", "4012000000001055", "5204240000015003", "5204240000015011"), SUCCESSFUL
    ),
    **dict.fromkeys(("4012000000001097", "5204240000015029"), CHALLENGE),
    **dict.fromkeys(
        (
            *("4005550000000019", "4012000000001022", "4012000000001030", "4012000000001014"),
            *("5204240000015045", "5204240000015052", "5204240000015060"),
        ),
        FAILED,
    ),
    # Our own test cards [D].
    "4111110000000013": ERROR,
    "4111110000000021": TIMEOUT_CHARGED,
    "4111110000000039": TIMEOUT_ABSENT,
    "4111110000000047": RENEWALS_FAIL,
    "4111110000000054": RENEWAL_FAILS_ONCE,
    "4111110000000062": RENEWALS_ERR,
    "4111110000000070": RENEWAL_ERRS_ONCE,
    "4111110000000088": SLOW,
    "4111110000000096": SECOND_RENEWAL_FAILS,
    "4111110000000104": RENEWAL_TIMEOUT,
}

# The outcome of the nth charge of a card with this behaviour, if it is not a success; the first charge has number 0.
_BY_COUNT: Final[Mapping[str, tuple[range, str]]] = {
    RENEWALS_FAIL: (range(1, 2**31), base.FAILED),
    RENEWAL_FAILS_ONCE: (range(1, 2), base.FAILED),
    SECOND_RENEWAL_FAILS: (range(2, 3), base.FAILED),
    RENEWALS_ERR: (range(1, 2**31), base.ERROR),
    RENEWAL_ERRS_ONCE: (range(1, 2), base.ERROR),
}
_ALWAYS: Final[Mapping[str, str]] = {FAILED: base.FAILED, ERROR: base.ERROR}
_MESSAGES: Final[Mapping[str, str]] = {
    base.SUCCESSFUL: base.SUCCESS_MESSAGE,
    base.FAILED: base.DECLINE_MESSAGE,
    base.ERROR: base.ERROR_MESSAGE,
    base.INCOMPLETE: "3-D Secure verification is needed",
}

FIND_CARD = PointRead("cards", ("card", "behaviour"), key=("shop_id", "token"))

INSERT_CARD = Insert("cards", ("shop_id", "token", "gateway", "card", "behaviour", "created_at"), key=("shop_id", "token"))

INSERT_CHARGE = Insert(
    "sandbox_charges",
    ("shop_id", "id", "token", "amount", "currency", "status", "message", "created_at"),
    key=("shop_id", "id", "token"),
)

FIND_CHARGE = PointRead(
    "sandbox_charges AS charge JOIN cards ON cards.shop_id = charge.shop_id AND cards.token = charge.token",
    ("charge.status", "charge.message", "cards.card", "charge.created_at"),
    key=("charge.shop_id", "charge.id"),
)

CARD_OF_CHARGE = PointRead(
    "sandbox_charges AS charge JOIN cards ON cards.shop_id = charge.shop_id AND cards.token = charge.token",
    ("cards.token", "cards.card"),
    key=("charge.shop_id", "charge.id"),
)

CLEAR_CARD = "UPDATE cards SET card = :card WHERE shop_id = :shop_id AND token = :token"

COUNT_CHARGES = PointRead("sandbox_charges", ("COUNT(*)",), key=("shop_id", "token"), suffix="GROUP BY token")

ANSWER_CHALLENGE = """
UPDATE sandbox_charges SET status = :status, message = :message
WHERE shop_id = :shop_id AND id = :id AND status = 'incomplete'
"""


REFUND = """
UPDATE sandbox_charges SET refunded_at = COALESCE(refunded_at, :now)
WHERE shop_id = :shop_id AND id = :id AND status = 'successful'
"""


async def clear_cards(tx: Transaction, shop_id: int, order_ids: Sequence[str]) -> None:
    """Remove holder, stamp and bin from the cards of these orders. The token still charges, as that of a real gateway does."""
    rows = await tx.find_many(CARD_OF_CHARGE, [(shop_id, id) for id in order_ids])
    cards = {token: msgspec.json.decode(card, type=Card) for token, card in filter(None, rows)}
    cleared = {token: msgspec.structs.replace(card, holder=None, stamp=None, bin=None) for token, card in cards.items()}
    texts = {token: msgspec.json.encode(card).decode() for token, card in cleared.items()}
    await tx.run_many(CLEAR_CARD, [{"shop_id": shop_id, "token": token, "card": text} for token, text in texts.items()])


class SandboxGateway:
    """The sandbox gateway. ``base_url`` is the address of this server for browsers, for the 3-D Secure page."""

    name = NAME

    def __init__(self, database: Database, master_key: MasterKey, base_url: str) -> None:
        self._database = database
        self._master_key = master_key
        self._base_url = base_url

    async def charge(self, order: Order, card: CardDetails | str, now: int) -> Result:
        if isinstance(card, CardDetails):
            stored_card, behaviour = self._new_card(card), _behaviour_of(card, now)
        else:
            found = await self._database.find(FIND_CARD, (order.shop_id, card))
            if found is None:
                return Result(base.FAILED, "Card token is unknown")
            stored_card, behaviour = msgspec.json.decode(found[0], type=Card), found[1]
            if _is_past(stored_card.exp_month, stored_card.exp_year, now):
                behaviour = FAILED
        if behaviour == SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if behaviour == TIMEOUT_ABSENT:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        status = await self._record_charge(order, stored_card, behaviour, now, is_new=isinstance(card, CardDetails))
        timed_out = behaviour == TIMEOUT_CHARGED or (behaviour == RENEWAL_TIMEOUT and order.recurring)
        if timed_out:
            return Result(base.UNKNOWN, base.TIMEOUT_MESSAGE)
        return self._result(order.id, status, _MESSAGES[status], stored_card)

    async def look_up(self, shop_id: int, order_id: str, now: int, *, amount: int, currency: str) -> Result | None:
        row = await self._database.find(FIND_CHARGE, (shop_id, order_id))
        if row is None:
            return None
        status, message, card, created_at = row
        if status == base.INCOMPLETE and now >= created_at + CHALLENGE_CLOSES:
            return Result(base.FAILED, base.EXPIRED_MESSAGE, order_id)
        return self._result(order_id, status, message, msgspec.json.decode(card, type=Card))

    async def refund(
        self, shop_id: int, order_id: str, uid: str | None, now: int, *, amount: int, currency: str, attempt: int
    ) -> Result:
        is_refunded = await execute(self._database, REFUND, {"shop_id": shop_id, "id": order_id, "now": now})
        return Result(base.SUCCESSFUL if is_refunded else base.FAILED, "")

    async def answer_challenge(self, shop_id: int, order_id: str, *, accepted: bool) -> None:
        """Record whether the buyer passed 3-D Secure. Only the first answer counts."""
        status = base.SUCCESSFUL if accepted else base.FAILED
        params = {"shop_id": shop_id, "id": order_id, "status": status, "message": _MESSAGES[status]}
        await execute(self._database, ANSWER_CHALLENGE, params)

    async def _record_charge(self, order: Order, card: Card, behaviour: str, now: int, *, is_new: bool) -> str:
        """Write the charge to the ledger if it is not there, and return its status in the ledger."""

        async def unit(tx: Transaction) -> str:
            if is_new:
                card_json = msgspec.json.encode(card).decode()
                await tx.insert(INSERT_CARD, (order.shop_id, card.token, NAME, card_json, behaviour, now))
            status = await self._status(tx, order, card, behaviour)
            money = (order.amount, order.currency)
            charge = (order.shop_id, order.id, card.token, *money, status, _MESSAGES[status], now)
            if await tx.insert(INSERT_CHARGE, charge):
                return status
            row = await tx.find(FIND_CHARGE, (order.shop_id, order.id))
            assert row is not None
            return str(row[0])

        return await self._database.write(unit)

    async def _status(self, tx: Transaction, order: Order, card: Card, behaviour: str) -> str:
        if behaviour == CHALLENGE and not order.recurring:
            return base.INCOMPLETE
        if behaviour in _BY_COUNT:
            row = await tx.find(COUNT_CHARGES, (order.shop_id, card.token))
            numbers, status = _BY_COUNT[behaviour]
            return status if (0 if row is None else row[0]) in numbers else base.SUCCESSFUL
        return _ALWAYS.get(behaviour, base.SUCCESSFUL)

    def _result(self, order_id: str, status: str, message: str, card: Card) -> Result:
        redirect_url = f"{self._base_url}/process/{order_id}" if status == base.INCOMPLETE else None
        return Result(status, message, order_id, card, redirect_url)

    def _new_card(self, card: CardDetails) -> Card:
        return Card(
            holder=card.holder,
            stamp=None if card.hosted else self._master_key.stamp(card.number),
            brand=base.brand_of(card.number),
            last_4=card.number[-4:],
            first_1=card.number[0],
            bin=None if card.hosted else card.number[:6],
            issuer_country=None,
            issuer_name=None,
            product=None,
            token=str(uuid.uuid4()),
            token_provider=None,
            exp_month=card.exp_month,
            exp_year=card.exp_year,
        )


def _behaviour_of(card: CardDetails, now: int) -> str:
    """The behaviour of a card. Unknown and expired cards are declined [D]."""
    return FAILED if _is_past(card.exp_month, card.exp_year, now) else TEST_CARDS.get(card.number, FAILED)


def _is_past(exp_month: int, exp_year: int, now: int) -> bool:
    today = datetime.fromtimestamp(now / 1000, UTC)
    return (exp_year, exp_month) < (today.year, today.month)
