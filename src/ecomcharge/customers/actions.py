"""The actions on customers: one function and one transaction for each."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.base.errors import CustomerErased, EcomchargeError, RecordNotFound
from ecomcharge.base.ids import IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.model import Customer, CustomerFields
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdCollision, retry_on_id_collision
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse, claim_or_replay

INDEXED_PER_COMMIT: Final = 500


async def create_customer(
    database: Database,
    id_generator: IdGenerator,
    now: int,
    shop_id: int,
    fields: CustomerFields,
    idempotency_key: IdempotencyKey | None,
) -> StoredResponse:
    """Create a customer, once for each idempotency key; return the response.

    Raises ``IdempotencyKeyReused`` or ``StillRunning`` for the idempotency key.
    """

    async def unit(tx: Transaction) -> StoredResponse:
        customer = _customer(id_generator.generate(now), fields)
        answer = StoredResponse(201, f"/customers/{customer.id}", msgspec.json.encode(customer))
        if idempotency_key is not None:
            earlier = await claim_or_replay(tx, shop_id, idempotency_key, answer, now)
            if earlier is not None:
                return earlier
        if not await store.insert(tx, shop_id, customer):
            raise IdCollision
        return answer

    return await retry_on_id_collision(database, unit)


def _customer(customer_id: str, fields: CustomerFields) -> Customer:
    return Customer(customer_id, *msgspec.structs.astuple(fields))


async def index_customers(database: Database) -> int:
    """Add the customers that an earlier release wrote to the search index. Returns their number."""
    total = 0
    while not await store.are_indexed(database):
        total += await database.write(lambda tx: store.index_some(tx, INDEXED_PER_COMMIT))
    return total


async def read_customer(database: Database, shop_id: int, customer_id: str) -> Customer:
    """Raises ``RecordNotFound`` for an id that this shop does not have, and ``CustomerErased``."""
    customer = await store.find(database, shop_id, customer_id)
    if customer is None:
        raise await absent(database, shop_id, customer_id)
    return customer


async def absent(reader: Database | Transaction, shop_id: int, customer_id: str) -> EcomchargeError:
    """The error for a request of a customer that was not found."""
    return CustomerErased() if await store.is_erased(reader, shop_id, customer_id) else RecordNotFound()
