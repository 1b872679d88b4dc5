"""The route of events: ``GET /events``, newest first."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.base.clock import Clock
from ecomcharge.base.ids import EVENT_ID, EVENT_PREFIX
from ecomcharge.events.model import EventObject, to_json
from ecomcharge.events.store import Events
from ecomcharge.storage.database import Database
from ecomcharge.storage.records import ALL_IDS, IdRange
from ecomcharge.web.filters import Filters
from ecomcharge.web.listing import (
    DEFAULT_LIMIT,
    MAXIMUM_LIMIT,
    cursor_of,
    link_to,
    number_of,
    selection_of,
    storable,
    total_count,
)
from ecomcharge.web.messages import Request, Response, json_response
from ecomcharge.web.router import Route
from ecomcharge.web.stale_reads import reader_for

FILTERS: Final = Filters("events", ("object", "type"), EventObject.__annotations__)


class EventRoutes:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        return [Route("GET", "/events", self.list)]

    async def list(self, request: Request) -> Response:
        """Raises ``BadParameter``."""
        query = FILTERS.query_of(request)
        limit = number_of(query, "limit", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        selection = selection_of(query, EVENT_PREFIX, newest_first=True)
        after, before = (cursor_of(query, name, "event", EVENT_ID) for name in ("after", "before"))
        object_id, type = query.get("object"), query.get("type")
        if not storable(object_id, type):
            object_id = type = ""  # no event has these
        events = Events(await reader_for(request, self._database), request.shop_id, self._clock.now(), object_id, type)
        page = selection.ids.narrowed_to(IdRange(after, before or ALL_IDS.before))
        found = await events.select(limit + 1, page, newest_first=selection.newest_first)
        headers = []
        if len(found) > limit:
            cursors = {name: query[name] for name in ("after", "before") if query.get(name)}
            cursors["before" if selection.newest_first else "after"] = found[limit - 1].id
            headers.append(("link", link_to(request, query, FILTERS.names, "next", limit=limit, **cursors)))
        if selection.counted:
            headers.append(total_count(await events.count(selection.ids)))
        return json_response(200, msgspec.json.encode([to_json(event) for event in found[:limit]]), *headers)
