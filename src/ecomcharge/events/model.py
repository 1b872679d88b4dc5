"""An event: a change of an object of a shop, with the object in its new state. An addition of this program [D]."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ecomcharge.base.calendar import iso

CUSTOMER_CREATED: Final = "customer.created"
KEPT_MILLISECONDS: Final = 30 * 24 * 60 * 60 * 1000


class Event(msgspec.Struct, frozen=True):
    """``sequence`` counts the events of one object from 1; ``data`` is the object as JSON."""

    id: str
    type: str
    object_id: str
    sequence: int
    created_at: int  # UTC milliseconds
    data: msgspec.Raw


def to_json(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "object_id": event.object_id,
        "sequence": event.sequence,
        "created_at": iso(event.created_at),
        "data": event.data,
    }
