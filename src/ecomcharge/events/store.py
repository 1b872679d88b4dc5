"""SQL of events. The creation of a customer has no row: it is read from the customer, so a create writes no event."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ecomcharge.base.ids import CUSTOMER_ID, CUSTOMER_PREFIX, EVENT_PREFIX, first_id_at, last_id_before, moment_of
from ecomcharge.customers.model import Customer
from ecomcharge.customers.store import COLUMNS, customer_of_columns
from ecomcharge.events.model import CUSTOMER_CREATED, KEPT_MILLISECONDS, Event
from ecomcharge.storage.database import Database, Reader, Transaction
from ecomcharge.storage.records import ALL_IDS, IdRange, delete_each, direction
from ecomcharge.storage.statements import Insert, PointRead

INSERT = Insert("events", ("shop_id", "id", "type", "object_id", "sequence", "created_at", "data"), key=("shop_id", "id"))

ID_OF = PointRead("events", ("id",), key=("shop_id", "object_id", "sequence"))

SELECT = """
SELECT id, type, object_id, sequence, created_at, data FROM events
WHERE shop_id = :shop_id AND id > :after AND id < :before {matching}
ORDER BY id {direction} LIMIT :limit
"""

COUNT = "SELECT COUNT(*) FROM events WHERE shop_id = :shop_id AND id > :after AND id < :before {matching}"

SELECT_CUSTOMERS = f"""
SELECT {COLUMNS} FROM customers
WHERE shop_id = :shop_id AND id > :after AND id < :before {{matching}}
ORDER BY id {{direction}} LIMIT :limit
"""

COUNT_CUSTOMERS = "SELECT COUNT(*) FROM customers WHERE shop_id = :shop_id AND id > :after AND id < :before {matching}"

OF_OBJECT = """
SELECT id, type, object_id, sequence, created_at, data FROM events
WHERE shop_id = :shop_id AND object_id = :object_id ORDER BY sequence
"""

OLD = "SELECT id FROM events WHERE shop_id = :shop_id AND id < :oldest ORDER BY id LIMIT :limit"

DELETE_OLD = "DELETE FROM events WHERE shop_id = :shop_id AND id = :id"


async def insert(tx: Transaction, shop_id: int, event: Event) -> bool:
    """``False`` if the id is taken."""
    *fields, data = msgspec.structs.astuple(event)
    return await tx.insert(INSERT, (shop_id, *fields, bytes(data).decode()))


async def id_of(tx: Transaction, shop_id: int, object_id: str, sequence: int) -> str | None:
    """The id of an object's event with this sequence number, or ``None`` if it was deleted."""
    row = await tx.find(ID_OF, (shop_id, object_id, sequence))
    return str(row[0]) if row is not None else None


async def of_object(database: Reader, shop_id: int, object_id: str) -> list[Event]:
    """The stored events of an object in their order."""
    rows = await database.rows(OF_OBJECT, {"shop_id": shop_id, "object_id": object_id})
    return [_event(*row) for row in rows]


async def forget_some_old(database: Database, shop_id: int, now: int, limit: int) -> int:
    """Delete up to ``limit`` events of a shop that are older than the retention time; return their number."""
    oldest = first_id_at(EVENT_PREFIX, max(0, now - KEPT_MILLISECONDS))
    old = {"shop_id": shop_id, "oldest": oldest, "limit": limit}
    return await delete_each(database, OLD, old, DELETE_OLD, lambda row: {"shop_id": shop_id, "id": row[0]})


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a shop in the retention time before ``now``; of one object or one type if given.

    The id of the event of a creation is that of the customer with another prefix.
    """

    database: Reader
    shop_id: int
    now: int
    object_id: str | None = None
    type: str | None = None

    async def select(self, limit: int, ids: IdRange = ALL_IDS, *, newest_first: bool = False) -> list[Event]:
        """The first ``limit`` events of a range, in ascending or descending order."""
        ids, order, found = self._kept(ids), direction(newest_first), list[Event]()
        if self._has_records:
            matching, params = self._matching(ids)
            sql = SELECT.format(matching=matching, direction=order)
            found += [_event(*row) for row in await self.database.rows(sql, {**params, "limit": limit})]
        if self._has_creations:
            matching, params = self._matching_customers(ids)
            sql = SELECT_CUSTOMERS.format(matching=matching, direction=order)
            found += [_creation(customer_of_columns(row)) for row in await self.database.rows(sql, {**params, "limit": limit})]
        return sorted(found, key=lambda event: event.id, reverse=newest_first)[:limit]

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        ids, total = self._kept(ids), 0
        if self._has_records:
            matching, params = self._matching(ids)
            total += (await self.database.rows_in_background(COUNT.format(matching=matching), params))[0][0]
        if self._has_creations:
            matching, params = self._matching_customers(ids)
            total += (await self.database.rows_in_background(COUNT_CUSTOMERS.format(matching=matching), params))[0][0]
        return total

    def _kept(self, ids: IdRange) -> IdRange:
        return ids.narrowed_to(IdRange(after=last_id_before(EVENT_PREFIX, self.now - KEPT_MILLISECONDS)))

    @property
    def _has_records(self) -> bool:
        return self.type != CUSTOMER_CREATED

    @property
    def _has_creations(self) -> bool:
        of_any_customer = self.object_id is None or CUSTOMER_ID.match(self.object_id) is not None
        return of_any_customer and self.type in (None, CUSTOMER_CREATED)

    def _matching(self, ids: IdRange) -> tuple[str, dict[str, object]]:
        chosen = {name: value for name, value in (("object_id", self.object_id), ("type", self.type)) if value is not None}
        matching = " ".join(f"AND {name} = :{name}" for name in chosen)
        return matching, {"shop_id": self.shop_id, "after": ids.after, "before": ids.before, **chosen}

    def _matching_customers(self, ids: IdRange) -> tuple[str, dict[str, object]]:
        params = {"shop_id": self.shop_id, "after": _customer_id(ids.after), "before": _customer_id(ids.before)}
        return ("", params) if self.object_id is None else ("AND id = :id", {**params, "id": self.object_id})


def _event(id: str, type: str, object_id: str, sequence: int, created_at: int, data: str) -> Event:
    return Event(id, type, object_id, sequence, created_at, msgspec.Raw(data.encode()))


def _creation(customer: Customer) -> Event:
    id = EVENT_PREFIX + customer.id.removeprefix(CUSTOMER_PREFIX)
    data = msgspec.Raw(msgspec.json.encode(customer))
    return Event(id, CUSTOMER_CREATED, customer.id, 1, moment_of(customer.id), data)


def _customer_id(event_id: str) -> str:
    return CUSTOMER_PREFIX + event_id.removeprefix(EVENT_PREFIX)
