"""The actions on plans: one function and one transaction for each."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ecomcharge.base.errors import RecordNotFound
from ecomcharge.base.ids import IdGenerator
from ecomcharge.plans import model, store
from ecomcharge.plans.model import Plan, PlanFields
from ecomcharge.shops import store as shops
from ecomcharge.shops.model import SANDBOX
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdCollision, retry_on_id_collision
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse, claim_or_replay

Encode = Callable[[Plan], bytes]


def made(id_generator: IdGenerator, now: int, fields: PlanFields) -> Plan:
    """A plan that is not written yet."""
    return Plan(**msgspec.structs.asdict(fields), id=id_generator.generate(now), created_at=now, updated_at=now)


async def create_plan(
    database: Database,
    id_generator: IdGenerator,
    now: int,
    shop_id: int,
    fields: PlanFields,
    idempotency_key: IdempotencyKey | None,
    encode: Encode,
    *,
    misplaced_test: bool = False,
) -> StoredResponse:
    """Create a plan, once for each idempotency key; return the response.

    ``misplaced_test`` is whether the body has a true ``test`` in the wrong place. Raises ``ValidationFailed`` for such a body
    if a real gateway would charge for the plan, and ``IdempotencyKeyReused`` or ``StillRunning`` for the idempotency key.
    """

    async def unit(tx: Transaction) -> StoredResponse:
        plan = made(id_generator, now, fields)
        answer = StoredResponse(201, f"/plans/{plan.id}", encode(plan))
        if idempotency_key is not None:
            earlier = await claim_or_replay(tx, shop_id, idempotency_key, answer, now)
            if earlier is not None:
                return earlier
        if misplaced_test and not plan.test and (await shops.gateway_choice(tx, shop_id)).gateway != SANDBOX:
            raise model.misplaced_test("test")
        if not await store.insert(tx, shop_id, plan):
            raise IdCollision
        return answer

    return await retry_on_id_collision(database, unit)


async def read_plan(database: Database, shop_id: int, plan_id: str) -> Plan:
    """Raises ``RecordNotFound`` for an id that this shop does not have."""
    plan = await store.find(database, shop_id, plan_id)
    if plan is None:
        raise RecordNotFound
    return plan
