"""What is done with plans. One function each, one transaction each."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ecomcharge.errors import RecordNotFound
from ecomcharge.idempotency import Answer, Attempt, answer_once
from ecomcharge.ids import IdMint
from ecomcharge.plans import model, store
from ecomcharge.plans.model import Plan, PlanFields
from ecomcharge.shops import store as shops
from ecomcharge.shops.model import SANDBOX
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdTaken, write_under_free_ids

Encode = Callable[[Plan], bytes]


def made(mint: IdMint, now: int, fields: PlanFields) -> Plan:
    """A plan that is not written yet."""
    return Plan(**msgspec.structs.asdict(fields), id=mint.mint(now), created_at=now, updated_at=now)


async def create_plan(
    database: Database,
    mint: IdMint,
    now: int,
    shop_id: int,
    fields: PlanFields,
    attempt: Attempt | None,
    encode: Encode,
    *,
    misplaced_test: bool = False,
) -> Answer:
    """Create a plan, once per attempt, and say what to answer.

    ``misplaced_test`` tells that the body has a true ``test`` in the wrong place.
    Raises ``Invalid`` for such a body if cards of the plan would be charged at a real gateway,
    ``IdempotencyKeyReused`` or ``StillRunning`` from the attempt's key.
    """

    async def unit(tx: Transaction) -> Answer:
        plan = made(mint, now, fields)
        answer = Answer(201, f"/plans/{plan.id}", encode(plan))
        if attempt is not None:
            earlier = await answer_once(tx, shop_id, attempt, answer, now)
            if earlier is not None:
                return earlier
        if misplaced_test and not plan.test and (await shops.gateway_choice(tx, shop_id)).gateway != SANDBOX:
            raise model.misplaced_test("test")
        if not await store.insert(tx, shop_id, plan):
            raise IdTaken
        return answer

    return await write_under_free_ids(database, unit)


async def read_plan(database: Database, shop_id: int, plan_id: str) -> Plan:
    """Raises ``RecordNotFound`` for an id that this shop does not have."""
    plan = await store.find(database, shop_id, plan_id)
    if plan is None:
        raise RecordNotFound
    return plan
