"""The actions on customers: one function and one transaction for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ecomcharge.base.errors import CustomerErased, EcomchargeError, PreconditionFailed, RecordNotFound, Unavailable
from ecomcharge.base.ids import IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.changes import ChangeRecorder, write_change
from ecomcharge.customers.model import Customer, CustomerFields, StoredCustomer, change_of
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import IdCollision, StaleVersion, retry_on_conflict, retry_on_id_collision
from ecomcharge.web.idempotency import IdempotencyKey, StoredResponse, claim_or_replay, earlier_response
from ecomcharge.web.preconditions import IfMatch

INDEXED_PER_COMMIT: Final = 500


def create_customer(
    database: Database,
    id_generator: IdGenerator,
    now: int,
    shop_id: int,
    fields: CustomerFields,
    idempotency_key: IdempotencyKey | None,
) -> Coroutine[Any, Any, StoredResponse]:
    """Create a customer, once for each idempotency key; return the response.

    Raises ``IdempotencyKeyReused`` or ``StillRunning`` for the idempotency key.
    """

    async def unit(tx: Transaction) -> StoredResponse:
        customer = _customer(id_generator.generate(now), fields)
        answer = StoredResponse(201, _path_of(customer), msgspec.json.encode(customer))
        if idempotency_key is not None:
            earlier = await claim_or_replay(tx, shop_id, idempotency_key, answer, now)
            if earlier is not None:
                return earlier
        if not await store.insert(tx, shop_id, customer):
            raise IdCollision
        return answer

    return retry_on_id_collision(database, unit)


def _customer(customer_id: str, fields: CustomerFields) -> Customer:
    return Customer(customer_id, *msgspec.structs.astuple(fields))


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A request to change a customer. ``edit`` returns its new fields, or raises ``ValidationFailed``.

    ``only_create``: ``PreconditionFailed`` if there is a customer.
    """

    shop_id: int
    now: int
    edit: Callable[[Customer], CustomerFields]
    if_match: IfMatch | None = None
    idempotency_key: IdempotencyKey | None = None
    only_create: bool = False


async def change_customer(
    database: Database, recorder: ChangeRecorder, customer_id: str, request: ChangeRequest
) -> StoredResponse:
    """Change a customer, once for each idempotency key; return the response. A change without effect writes nothing.

    Raises ``RecordNotFound``, ``CustomerErased``, ``PreconditionFailed``, what ``edit`` raises, and for the idempotency key as
    ``create_customer``.
    """

    async def unit(tx: Transaction) -> StoredResponse:
        earlier = await _earlier(tx, request)  # first: a repeated request that succeeded has an old version in If-Match
        if earlier is not None:
            return earlier
        stored = await store.find_stored(tx, request.shop_id, customer_id)
        if stored is None:
            raise await absent(tx, request.shop_id, customer_id)
        return await _change(tx, recorder, stored, request)

    return await retry_on_conflict(database, unit)


async def put_by_external_id(
    database: Database,
    recorder: ChangeRecorder,
    id_generator: IdGenerator,
    external_id: str,
    request: ChangeRequest,
    fields: CustomerFields,
) -> StoredResponse:
    """Create the customer with this external id if the shop has none, otherwise change the oldest one.

    Concurrent calls create one customer: a transaction that finds none takes a lock and looks again. Raises as
    ``change_customer``.
    """
    shop_id = request.shop_id

    async def unit(tx: Transaction) -> StoredResponse:
        earlier = await _earlier(tx, request)
        if earlier is not None:
            return earlier
        stored = await store.find_oldest(tx, shop_id, external_id)
        if stored is not None:
            return await _change(tx, recorder, stored, request)
        if not await store.lock_external_id(tx, shop_id, external_id):
            raise StaleVersion  # the unit that has the lock creates the customer in this transaction
        stored = await store.find_oldest(tx, shop_id, external_id)
        answer = await (_create(tx, id_generator, fields, request) if stored is None else _change(tx, recorder, stored, request))
        await store.unlock_external_id(tx, shop_id, external_id)
        return answer

    return await retry_on_conflict(database, unit)


async def _create(tx: Transaction, id_generator: IdGenerator, fields: CustomerFields, request: ChangeRequest) -> StoredResponse:
    if request.if_match is not None:
        request.if_match.check(None)
    customer = _customer(id_generator.generate(request.now), fields)
    answer = StoredResponse(201, _path_of(customer), msgspec.json.encode(customer))
    earlier = await _claim(tx, request, answer)
    if earlier is not None:
        return earlier
    if not await store.insert(tx, request.shop_id, customer):
        raise IdCollision
    return answer


async def _change(tx: Transaction, recorder: ChangeRecorder, stored: StoredCustomer, request: ChangeRequest) -> StoredResponse:
    if request.if_match is not None:
        request.if_match.check(stored.version)
    if request.only_create:
        raise PreconditionFailed
    change = change_of(stored, request.edit(stored.customer), request.now)
    after = change.after
    body = msgspec.json.encode(after.customer)
    answer = StoredResponse(200, _path_of(after.customer), body, version=after.version, updated_at=after.updated_at)
    earlier = await _claim(tx, request, answer)
    if earlier is not None:
        return earlier
    if not change.names and request.idempotency_key is not None and not await store.lock(tx, request.shop_id, stored):
        raise StaleVersion  # an erasure would not find the response that this transaction stores
    await write_change(tx, recorder, request.shop_id, change)
    return answer


async def _earlier(tx: Transaction, request: ChangeRequest) -> StoredResponse | None:
    key = request.idempotency_key
    return None if key is None else await earlier_response(tx, request.shop_id, key, request.now)


async def _claim(tx: Transaction, request: ChangeRequest, answer: StoredResponse) -> StoredResponse | None:
    key = request.idempotency_key
    return None if key is None else await claim_or_replay(tx, request.shop_id, key, answer, request.now)


def _path_of(customer: Customer) -> str:
    return f"/customers/{customer.id}"


async def index_customers(database: Database) -> int:
    """Add the customers that an earlier release wrote to the search index. Returns their number."""
    total = 0
    while not await store.are_indexed(database):
        total += await database.write(lambda tx: store.index_some(tx, INDEXED_PER_COMMIT))
    return total


async def merge_search_index(database: Database) -> None:
    """Merge all parts of the search index, where that is worth its time, after many customers were added."""
    with contextlib.suppress(Unavailable):  # the customers are stored, and the next merge goes on
        while await database.merge_terms(store.SEARCH, all_segments=True):
            pass


async def read_customer(database: Database, shop_id: int, customer_id: str) -> StoredCustomer:
    """Raises ``RecordNotFound`` for an id that this shop does not have, and ``CustomerErased``."""
    stored = await store.find_stored(database, shop_id, customer_id)
    if stored is None:
        raise await absent(database, shop_id, customer_id)
    return stored


async def read_by_external_id(database: Database, shop_id: int, external_id: str) -> StoredCustomer:
    """The oldest customer with this external id. Raises ``RecordNotFound`` if the shop has none."""
    stored = await store.find_oldest(database, shop_id, external_id)
    if stored is None:
        raise RecordNotFound
    return stored


async def absent(reader: Database | Transaction, shop_id: int, customer_id: str) -> EcomchargeError:
    """The error for a request of a customer that was not found."""
    return CustomerErased() if await store.is_erased(reader, shop_id, customer_id) else RecordNotFound()
