"""The route of events: ``GET /events``, newest first."""

from __future__ import annotations

import msgspec

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import BadParameter
from ecomcharge.base.ids import EVENT_ID
from ecomcharge.events import store
from ecomcharge.events.model import to_json
from ecomcharge.storage.database import Database
from ecomcharge.web.listing import DEFAULT_LIMIT, MAXIMUM_LIMIT, link_to, number_of, storable
from ecomcharge.web.messages import Request, Response, json_response
from ecomcharge.web.router import Route


class EventRoutes:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        return [Route("GET", "/events", self.list)]

    async def list(self, request: Request) -> Response:
        """Raises ``BadParameter``."""
        query = request.query()
        limit = number_of(query, "limit", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        before = query.get("before", "")
        if before and not EVENT_ID.match(before):
            raise BadParameter("Before must be an event id")
        object_id, type = query.get("object"), query.get("type")
        if not storable(object_id, type):
            return json_response(200, b"[]")
        found = await store.newest(
            self._database,
            request.shop_id,
            self._clock.now(),
            before=before,
            limit=limit + 1,
            object_id=object_id,
            type=type,
        )
        headers = []
        if len(found) > limit:
            headers.append(("link", link_to(request, query, ("object", "type"), "next", limit=limit, before=found[limit - 1].id)))
        return json_response(200, msgspec.json.encode([to_json(event) for event in found[:limit]]), *headers)
