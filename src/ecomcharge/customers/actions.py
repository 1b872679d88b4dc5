"""What is done with customers. One function each, one transaction each."""

from __future__ import annotations

import msgspec

from ecomcharge.customers import store
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.errors import RecordNotFound
from ecomcharge.idempotency import Answer, Attempt, answer_once
from ecomcharge.ids import IdMint
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdTaken, write_under_free_ids


async def create_customer(
    database: Database,
    mint: IdMint,
    now: int,
    shop_id: int,
    fields: CustomerFields,
    attempt: Attempt | None,
) -> Answer:
    """Create a customer, once per attempt, and say what to answer.

    Raises ``IdempotencyKeyReused`` or ``StillRunning`` from the attempt's key.
    """

    async def unit(tx: Transaction) -> Answer:
        customer = _customer(mint.mint(now), fields)
        answer = Answer(201, f"/customers/{customer.id}", msgspec.json.encode(customer))
        if attempt is not None:
            earlier = await answer_once(tx, shop_id, attempt, answer, now)
            if earlier is not None:
                return earlier
        if not await store.insert(tx, shop_id, customer):
            raise IdTaken
        return answer

    return await write_under_free_ids(database, unit)


def _customer(customer_id: str, fields: CustomerFields) -> Customer:
    return Customer(customer_id, *msgspec.structs.astuple(fields))


async def read_customer(database: Database, shop_id: int, customer_id: str) -> Customer:
    """Raises ``RecordNotFound`` for an id that this shop does not have."""
    customer = await store.find(database, shop_id, customer_id)
    if customer is None:
        raise RecordNotFound
    return customer
