"""``/healthz``, ``/readyz`` and ``/metrics``, for load balancers and monitoring."""

from __future__ import annotations

import asyncio
from typing import Final

from ecomcharge.base.errors import Unavailable
from ecomcharge.storage.database import Database
from ecomcharge.web.access_log import AccessLog
from ecomcharge.web.messages import NO_STORE, Request, Response, json_response
from ecomcharge.web.metrics import Metrics
from ecomcharge.web.router import Route

READY_TIMEOUT_SECONDS: Final = 2.0


class HealthRoutes:
    def __init__(self, database: Database, access_log: AccessLog, metrics: Metrics, *, has_metrics: bool = True) -> None:
        """``has_metrics``: whether ``/metrics`` is one of the routes, and not served on a port of its own."""
        self._has_metrics = has_metrics
        self._database = database
        self._access_log = access_log
        self._metrics = metrics

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/healthz", self.healthy, needs_shop=False, exact=True),
            Route("GET", "/readyz", self.ready, needs_shop=False, exact=True),
            *([Route("GET", "/metrics", self.metrics, needs_shop=False, exact=True)] if self._has_metrics else ()),
        ]

    async def healthy(self, request: Request) -> Response:
        return json_response(200, b'{"status":"ok"}')

    async def ready(self, request: Request) -> Response:
        """200 when the database can be written. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                await self._database.ping()
        except TimeoutError as error:
            raise Unavailable from error
        return json_response(200, b'{"status":"ready"}')

    async def metrics(self, request: Request) -> Response:
        from ecomcharge.web.exposition import CONTENT_TYPE  # with the client library, at the first scrape

        return Response(200, self.exposition(), [("content-type", CONTENT_TYPE), NO_STORE])

    def exposition(self) -> bytes:
        self._access_log.flush()
        return self._metrics.exposition(self._database.stats)
