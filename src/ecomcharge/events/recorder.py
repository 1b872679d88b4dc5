"""Records events in the transaction of the change that they report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ecomcharge.base.ids import CUSTOMER_PREFIX, EVENT_PREFIX, IdGenerator
from ecomcharge.events import store
from ecomcharge.events.model import CUSTOMER_ERASED, CUSTOMER_UPDATED, Event
from ecomcharge.storage.database import Transaction

TRIES = 10  # to find a free id: another process may generate the same one in the same millisecond


async def insert_event(tx: Transaction, shop_id: int, event_ids: IdGenerator, event: Event, first_id: str = "") -> str:
    """Insert an event under a new id, which is returned.

    The id sorts after the id of the object's event before it, even if another process with another clock generated that.
    ``first_id`` is the id of the object's first event if that has no row.
    """
    previous = first_id
    if event.sequence > (2 if first_id else 1):
        previous = await store.id_of(tx, shop_id, event.object_id, event.sequence - 1) or first_id
    for _ in range(TRIES):
        event = msgspec.structs.replace(event, id=event_ids.generate_after(previous, event.created_at))
        if await store.insert(tx, shop_id, event):
            return event.id
    raise RuntimeError(f"event {event.sequence} of {event.object_id} exists already")


@dataclass(frozen=True, slots=True)
class CustomerEventRecorder:
    """Records the events of customers. The sequence of an event is the version of the customer."""

    event_ids: IdGenerator = field(default_factory=lambda: IdGenerator(EVENT_PREFIX))

    async def record_update(
        self, tx: Transaction, shop_id: int, customer_id: str, names: Sequence[str], version: int, now: int
    ) -> None:
        """Implements ``ChangeRecorder``. The event has the names of the changed fields, and no value [D]."""
        data = {"id": customer_id, "changed": names}
        await self._record(tx, shop_id, CUSTOMER_UPDATED, customer_id, version, now, data)

    async def record_erasure(self, tx: Transaction, shop_id: int, customer_id: str, sequence: int, now: int) -> None:
        """Record the erasure of a customer, in the transaction that erases it."""
        await self._record(tx, shop_id, CUSTOMER_ERASED, customer_id, sequence, now, {"id": customer_id})

    async def _record(
        self, tx: Transaction, shop_id: int, type: str, customer_id: str, sequence: int, now: int, data: object
    ) -> None:
        event = Event("", type, customer_id, sequence, now, msgspec.Raw(msgspec.json.encode(data)))
        await insert_event(tx, shop_id, self.event_ids, event, EVENT_PREFIX + customer_id.removeprefix(CUSTOMER_PREFIX))
