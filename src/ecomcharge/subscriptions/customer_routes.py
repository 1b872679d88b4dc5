"""The routes of customers that concern their subscriptions too: erasure and the export of one customer."""

from __future__ import annotations

from typing import Final

from ecomcharge.base.errors import BadParameter, RecordNotFound
from ecomcharge.base.ids import CUSTOMER_ID
from ecomcharge.customers import actions, store
from ecomcharge.storage.database import ReplicaFailed
from ecomcharge.subscriptions.charging import Charging
from ecomcharge.subscriptions.erasure import erase_customer
from ecomcharge.subscriptions.export import export_customer
from ecomcharge.web.messages import JSON, NO_STORE, Request, Response, Stream
from ecomcharge.web.preconditions import if_match_of
from ecomcharge.web.router import Route
from ecomcharge.web.stale_reads import reader_for

CANCEL: Final = "cancel"


class CustomerRecordRoutes:
    def __init__(self, charging: Charging) -> None:
        self._charging = charging

    def routes(self) -> list[Route]:
        return [Route("DELETE", "/customers/{}", self.delete), Route("GET", "/customers/{}/export", self.export)]

    async def delete(self, request: Request) -> Response:
        """Raises ``BadParameter``, and as ``erase_customer``."""
        subscriptions = request.query().get("subscriptions", "")
        if subscriptions not in ("", CANCEL):
            raise BadParameter(f"Subscriptions must be {CANCEL}")
        cancel, if_match = subscriptions == CANCEL, if_match_of(request)
        await erase_customer(self._charging, request.shop_id, _id(request), cancel=cancel, if_match=if_match)
        return Response(204, b"", [NO_STORE])

    async def export(self, request: Request) -> Stream:
        database, shop_id, customer_id = self._charging.database, request.shop_id, _id(request)
        reader = await reader_for(request, database)
        stored = await store.find_stored(reader, shop_id, customer_id)
        if stored is None and reader is not database:
            raise ReplicaFailed  # the customer may be new
        if stored is None:
            raise await actions.absent(database, shop_id, customer_id)
        chunks = export_customer(reader, shop_id, stored, self._charging.event_recorder.base_url)
        return Stream(200, [JSON, NO_STORE], chunks)


def _id(request: Request) -> str:
    if not CUSTOMER_ID.match(request.argument):
        raise RecordNotFound
    return request.argument
