"""An event: a change of an object of a shop, with the object in its new state. An addition of this program [D]."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypedDict

import msgspec
from msgspec import Meta

from ecomcharge.base.calendar import iso
from ecomcharge.base.wire_types import Moment, PositiveNumber

CUSTOMER_CREATED: Final = "customer.created"
CUSTOMER_UPDATED: Final = "customer.updated"
CUSTOMER_ERASED: Final = "customer.erased"
KEPT_MILLISECONDS: Final = 30 * 24 * 60 * 60 * 1000


class Event(msgspec.Struct, frozen=True):
    """``sequence`` counts the events of one object from 1; ``data`` is the object as JSON."""

    id: str
    type: str
    object_id: str
    sequence: int
    created_at: int  # UTC milliseconds
    data: msgspec.Raw


class CustomerUpdatedObject(TypedDict):
    """The fields of a customer that changed, without their values."""

    id: str
    changed: Annotated[list[str], Meta(description="The names of the changed fields, in the order of the customer object.")]


class EventObject(TypedDict):
    """An event. More keys may follow these."""

    id: str
    type: Annotated[str, Meta(description="The kind of the event.")]
    object_id: Annotated[str, Meta(description="The id of the customer or subscription.")]
    sequence: Annotated[PositiveNumber, Meta(description="Counts the events of one object from 1.")]
    created_at: Annotated[Moment, Meta(description="When it happened. UTC.")]
    data: Annotated[Any, Meta(description="The object at the time of the event; see `type`.")]


def to_json(event: Event) -> EventObject:
    return {
        "id": event.id,
        "type": event.type,
        "object_id": event.object_id,
        "sequence": event.sequence,
        "created_at": iso(event.created_at),
        "data": event.data,
    }
