"""The API description of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ecomcharge.base import errors, ids
from ecomcharge.customers.openapi import CUSTOMER
from ecomcharge.events.model import (
    CUSTOMER_CREATED,
    CUSTOMER_ERASED,
    CUSTOMER_UPDATED,
    KEPT_MILLISECONDS,
    CustomerUpdatedObject,
    EventObject,
)
from ecomcharge.web.listing import DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.openapi import OF_A_LIST, PREFER, Operation, Part, answer, count, cursor, json_list, query, selection
from ecomcharge.web.wire_forms import Json, matching, ref

_ID: Final = "evt_7aee5afb954c7efa"
_UPDATED: Final[Json] = {"id": CUSTOMER["id"], "changed": ["phone", "metadata"]}
_OF_CUSTOMERS: Final = (
    (CUSTOMER_CREATED, CUSTOMER),
    (CUSTOMER_UPDATED, _UPDATED),
    (CUSTOMER_ERASED, {"id": CUSTOMER["id"]}),
)
_PARAMETERS: Final = [
    query("limit", f"How many at most, {DEFAULT_LIMIT} unless given.", count(MAXIMUM_LIMIT)),
    query("before", "Only events that are older than this one.", cursor(ids.EVENT_ID)),
    query("after", "Only events that are newer than this one.", cursor(ids.EVENT_ID)),
    query("object", "Only events of the object with this id."),
    query("type", "Only events of this type."),
    *selection("events", "`desc` (newest first) unless given."),
    PREFER,
]


def part(subscriptions: Mapping[str, Json]) -> Part:
    """``subscriptions`` are the events of subscriptions, each with an example of its object."""
    example = example_of(*next(iter(subscriptions.items())))
    last = f"The events of the last {KEPT_MILLISECONDS // 86_400_000} days, newest first unless `order` is `asc`."
    found = answer("An array of events, `[]` when there are none.", json_list("Event", example), *OF_A_LIST)
    properties = {
        "id": ref("EventId"),
        "type": {"enum": [*(type for type, _ in _OF_CUSTOMERS), *subscriptions]},
        "data": {"anyOf": [ref("Subscription"), ref("Customer"), ref("CustomerUpdated"), ref("CustomerById")]},
    }
    return Part(
        "events",
        "The history of a shop's objects.",
        [Operation("GET", "/events", "listEvents", "List events", last, {200: found}, (errors.BadParameter,), _PARAMETERS)],
        types=[EventObject, CustomerUpdatedObject],
        schemas={
            "EventId": matching(ids.EVENT_ID, examples=[_ID]),
            "Event": {"properties": properties, "examples": [example, *(example_of(*each) for each in _OF_CUSTOMERS)]},
            "CustomerUpdated": {"properties": {"id": ref("CustomerId")}, "examples": [_UPDATED]},
        },
    )


def example_of(type: str, data: Json) -> Json:
    about = {"id": _ID, "type": type, "object_id": data["id"]}
    return about | {"sequence": 1, "created_at": "2026-01-01T09:00:00.000Z", "data": data}
