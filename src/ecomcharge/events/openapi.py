"""The API description of events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from ecomcharge.base import errors, ids
from ecomcharge.customers.openapi import CUSTOMER
from ecomcharge.events.model import CUSTOMER_CREATED, KEPT_MILLISECONDS, Event, EventObject, to_json
from ecomcharge.web.listing import DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.openapi import Operation, Part, answer, count, cursor, json_list, query
from ecomcharge.web.wire_forms import Json, matching, ref

_ID: Final = "evt_7aee5afb954c7efa"
_CREATED_AT: Final = 1_767_258_000_000  # 2026-01-01T09:00:00Z
_PARAMETERS: Final = [
    query("limit", f"How many at most, {DEFAULT_LIMIT} unless given.", count(MAXIMUM_LIMIT)),
    query("before", "Only events before this one. Empty: from the newest.", cursor(ids.EVENT_ID)),
    query("object", "Only events of the object with this id."),
    query("type", "Only events of this type."),
]


def part(types: Sequence[str], data: Json) -> Part:
    """``types`` are the events of subscriptions, ``data`` an example of the object of the first."""
    example = example_of(types[0], data)
    last = f"The events of the last {KEPT_MILLISECONDS // 86_400_000} days, newest first."
    found = answer("An array of events, `[]` when there are none.", json_list("Event", example), "Link")
    properties = {
        "id": ref("EventId"),
        "type": {"enum": [CUSTOMER_CREATED, *types]},
        "data": {"anyOf": [ref("Subscription"), ref("Customer")]},
    }
    return Part(
        "events",
        "The history of a shop's objects.",
        [Operation("GET", "/events", "listEvents", "List events", last, {200: found}, (errors.BadParameter,), _PARAMETERS)],
        types=[EventObject],
        schemas={
            "EventId": matching(ids.EVENT_ID, examples=[_ID]),
            "Event": {"properties": properties, "examples": [example, example_of(CUSTOMER_CREATED, CUSTOMER)]},
        },
    )


def example_of(type: str, data: Json) -> Json:
    event = Event(_ID, type, data["id"], 1, _CREATED_AT, msgspec.Raw(msgspec.json.encode(data)))
    decoded: Json = json.loads(msgspec.json.encode(to_json(event)))
    return decoded
