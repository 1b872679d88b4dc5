"""SQL of events. The creation of a customer has no row: it is read from the customer, so a create writes no event."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.base.ids import CUSTOMER_ID, CUSTOMER_PREFIX, EVENT_PREFIX, first_id_at, moment_of
from ecomcharge.customers.model import Customer
from ecomcharge.customers.store import COLUMNS, customer_of_columns
from ecomcharge.events.model import CUSTOMER_CREATED, KEPT_MILLISECONDS, Event
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import execute
from ecomcharge.storage.statements import Insert, PointRead

INSERT = Insert("events", ("shop_id", "id", "type", "object_id", "sequence", "created_at", "data"), key=("shop_id", "id"))

ID_OF = PointRead("events", ("id",), key=("shop_id", "object_id", "sequence"))

BEFORE = """
SELECT id, type, object_id, sequence, created_at, data FROM events
WHERE shop_id = :shop_id AND id < :before AND id >= :oldest {matching}
ORDER BY id DESC LIMIT :limit
"""

CUSTOMERS_BEFORE = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id AND id < :before AND id >= :oldest {{matching}}
ORDER BY id DESC LIMIT :limit
"""

FORGET_SOME_OLD = """
DELETE FROM events WHERE shop_id = :shop_id AND id IN (
    SELECT id FROM events WHERE shop_id = :shop_id AND id < :oldest ORDER BY id LIMIT :limit
)
"""

PAST_EVERY_ID: Final = f"{EVENT_PREFIX}g"


async def insert(tx: Transaction, shop_id: int, event: Event) -> bool:
    """``False`` if the id is taken."""
    *fields, data = msgspec.structs.astuple(event)
    return await tx.insert(INSERT, (shop_id, *fields, bytes(data).decode()))


async def id_of(tx: Transaction, shop_id: int, object_id: str, sequence: int) -> str | None:
    """The id of an object's event with this sequence number, or ``None`` if it was deleted."""
    row = await tx.find(ID_OF, (shop_id, object_id, sequence))
    return str(row[0]) if row is not None else None


async def newest(
    database: Database, shop_id: int, now: int, *, before: str, limit: int, object_id: str | None = None, type: str | None = None
) -> list[Event]:
    """The last events before an id, newest first; of one object or one type if given."""
    before = before or PAST_EVERY_ID
    oldest = first_id_at(EVENT_PREFIX, max(0, now - KEPT_MILLISECONDS))
    found: list[Event] = []
    if type != CUSTOMER_CREATED and not (object_id and CUSTOMER_ID.match(object_id)):
        chosen = {name: value for name, value in {"object_id": object_id, "type": type}.items() if value is not None}
        matching = " ".join(f"AND {name} = :{name}" for name in chosen)
        params = {"shop_id": shop_id, "before": before, "oldest": oldest, "limit": limit, **chosen}
        for id, type_, object_, sequence, created_at, data in await database.rows(BEFORE.format(matching=matching), params):
            found.append(Event(id, type_, object_, sequence, created_at, msgspec.Raw(data.encode())))
    if type in (None, CUSTOMER_CREATED) and (object_id is None or CUSTOMER_ID.match(object_id)):
        matching = "" if object_id is None else "AND id = :id"
        params = {"shop_id": shop_id, "before": _customer_id(before), "oldest": _customer_id(oldest), "limit": limit}
        params.update({} if object_id is None else {"id": object_id})
        rows = await database.rows(CUSTOMERS_BEFORE.format(matching=matching), params)
        found += [_creation(customer_of_columns(row)) for row in rows]
    return sorted(found, key=lambda event: event.id, reverse=True)[:limit]


async def forget_some_old(database: Database, shop_id: int, now: int, limit: int) -> int:
    """Delete up to ``limit`` events of a shop that are older than the retention time; return their number."""
    oldest = first_id_at(EVENT_PREFIX, max(0, now - KEPT_MILLISECONDS))
    return await execute(database, FORGET_SOME_OLD, {"shop_id": shop_id, "oldest": oldest, "limit": limit})


def _creation(customer: Customer) -> Event:
    id = EVENT_PREFIX + customer.id.removeprefix(CUSTOMER_PREFIX)
    data = msgspec.Raw(msgspec.json.encode(customer))
    return Event(id, CUSTOMER_CREATED, customer.id, 1, moment_of(customer.id), data)


def _customer_id(event_id: str) -> str:
    return CUSTOMER_PREFIX + event_id.removeprefix(EVENT_PREFIX)
