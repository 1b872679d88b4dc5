"""The routes of customers: ``POST /customers``, ``GET /customers``, ``GET /customers/{id}``."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import RecordNotFound
from ecomcharge.base.ids import CUSTOMER_ID, CUSTOMER_PREFIX, IdGenerator
from ecomcharge.base.validation import decode_body
from ecomcharge.customers import actions, store
from ecomcharge.customers.model import BODY, Customer, validate
from ecomcharge.customers.store import Filter
from ecomcharge.storage.database import Database
from ecomcharge.web.filters import Filters
from ecomcharge.web.idempotency import idempotency_key_of
from ecomcharge.web.listing import Listing, storable
from ecomcharge.web.messages import Request, Response, Stream, json_response, stored_response, without_blanks
from ecomcharge.web.router import Route

_encode = msgspec.json.Encoder().encode

NOBODY: Final = Filter(email="")  # blank is never stored
FILTERS: Final = Filters("customers", ("email", "external_id"), Customer.__struct_fields__)
LISTING: Final[Listing[Customer]] = Listing("customer", "customers", CUSTOMER_ID, CUSTOMER_PREFIX, _encode)


class CustomerRoutes:
    def __init__(self, database: Database, clock: Clock, id_generator: IdGenerator) -> None:
        self._database = database
        self._clock = clock
        self._id_generator = id_generator

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/customers", self.create),
            Route("GET", "/customers", self.list),
            Route("GET", "/customers/{}", self.read),
        ]

    async def create(self, request: Request) -> Response:
        body = await request.json()
        fields = validate(decode_body(body, BODY))
        idempotency_key = idempotency_key_of(request.idempotency_key(), "POST /customers", body)
        answer = await actions.create_customer(
            self._database, self._id_generator, self._clock.now(), request.shop_id, fields, idempotency_key
        )
        response = stored_response(answer)
        if answer.location is not None:
            response.headers.append(_subscriptions_of(answer.location[len("/customers/") :]))
        return response

    async def read(self, request: Request) -> Response:
        if not CUSTOMER_ID.match(request.argument):
            raise RecordNotFound
        customer = await actions.read_customer(self._database, request.shop_id, request.argument)
        return json_response(200, _encode(customer), _subscriptions_of(customer.id))

    async def list(self, request: Request) -> Response | Stream:
        query = FILTERS.query_of(request)
        filter = Filter(email=without_blanks(query.get("email")), external_id=query.get("external_id"))
        if not storable(filter.email, filter.external_id):
            filter = NOBODY
        customers = store.Customers(self._database, request.shop_id, filter)
        return await LISTING.answer(request, customers, query, FILTERS.names)


def _subscriptions_of(customer_id: str) -> tuple[str, str]:
    """The link to the customer's subscriptions (RFC 8288) [D]."""
    return "link", f'</subscriptions?customer={customer_id}>; rel="related"; title="subscriptions"'
