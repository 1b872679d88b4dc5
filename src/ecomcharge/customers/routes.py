"""The routes of customers: create, list, read, change, and get or create by external id."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from ecomcharge.base.card_numbers import may_contain
from ecomcharge.base.clock import Clock
from ecomcharge.base.errors import RecordNotFound
from ecomcharge.base.ids import CUSTOMER_ID, CUSTOMER_PREFIX, IdGenerator, moment_of
from ecomcharge.base.validation import ValidationErrors, decode_body
from ecomcharge.customers import actions, store
from ecomcharge.customers.actions import ChangeRequest
from ecomcharge.customers.changes import ChangeRecorder
from ecomcharge.customers.model import (
    BODY,
    EXTERNAL_ID,
    PATCH,
    UNREADABLE,
    Customer,
    CustomerFields,
    StoredCustomer,
    merge,
    validate,
    validate_change,
    validate_external,
)
from ecomcharge.customers.search import check_text
from ecomcharge.customers.store import Filter
from ecomcharge.storage.database import Database
from ecomcharge.web.filters import Filters
from ecomcharge.web.idempotency import StoredResponse, idempotency_key_of
from ecomcharge.web.listing import Listing, storable
from ecomcharge.web.messages import NO_STORE, Request, Response, Stream, json_response, stored_response, without_blanks
from ecomcharge.web.preconditions import Validators, if_match_of, none_match, validators_of
from ecomcharge.web.router import Route
from ecomcharge.web.stale_reads import reader_for

_encode = msgspec.json.Encoder().encode

NOBODY: Final = Filter(email="")  # blank is never stored
FILTERS: Final = Filters("customers", ("email", "external_id", "q"), Customer.__struct_fields__)
LENGTH_OF_ID: Final = len(CUSTOMER_PREFIX) + 16
LENGTH_OF_START: Final = LENGTH_OF_ID - 7
LISTING: Final[Listing[Customer]] = Listing("customer", "customers", CUSTOMER_ID, CUSTOMER_PREFIX, _encode)


class CustomerRoutes:
    def __init__(self, database: Database, clock: Clock, id_generator: IdGenerator, recorder: ChangeRecorder) -> None:
        self._database = database
        self._clock = clock
        self._id_generator = id_generator
        self._recorder = recorder

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/customers", self.create),
            Route("GET", "/customers", self.list),
            Route("GET", "/customers/{}", self.read),
            Route("PATCH", "/customers/{}", self.patch),
            Route("POST", "/customers/{}", self.patch),
            Route("PUT", "/customers/{}", self.put),
            Route("GET", "/customers/external/{*}", self.read_by_external_id),
            Route("PUT", "/customers/external/{*}", self.put_by_external_id),
        ]

    async def create(self, request: Request) -> Response:
        body = await request.json()
        fields = validate(decode_body(body, BODY), look_for_cards=may_contain(body))
        idempotency_key = idempotency_key_of(request.idempotency_key(), "POST /customers", body)
        answer = await actions.create_customer(
            self._database, self._id_generator, self._clock.now(), request.shop_id, fields, idempotency_key
        )
        return _changed(answer)

    async def read(self, request: Request) -> Response:
        if not CUSTOMER_ID.match(request.argument):
            raise RecordNotFound
        return _found(request, await actions.read_customer(self._database, request.shop_id, request.argument))

    async def patch(self, request: Request) -> Response:
        """Change the given fields (RFC 7396). POST is the same, for clients that cannot send PATCH [D]."""
        body = await self._body_for(request)
        patch, look = decode_body(body, PATCH), may_contain(body)
        return await self._change(
            request, body, lambda stored: validate_change(stored, merge(stored, patch), look_for_cards=look)
        )

    async def put(self, request: Request) -> Response:
        """Replace all fields."""
        body = await self._body_for(request)
        fields, look = decode_body(body, BODY), may_contain(body)
        return await self._change(request, body, lambda stored: validate_change(stored, fields, look_for_cards=look))

    async def _body_for(self, request: Request) -> bytes:
        if not CUSTOMER_ID.match(request.argument):
            raise RecordNotFound
        return await request.json()

    async def _change(self, request: Request, body: bytes, edit: Callable[[Customer], CustomerFields]) -> Response:
        change = self._change_request(request, f"/customers/{request.argument}", body, edit)
        return _changed(await actions.change_customer(self._database, self._recorder, request.argument, change))

    async def read_by_external_id(self, request: Request) -> Response:
        external_id = EXTERNAL_ID.read(request.argument, ValidationErrors())
        if external_id is None or UNREADABLE in external_id:
            raise RecordNotFound
        return _found(request, await actions.read_by_external_id(self._database, request.shop_id, external_id))

    async def put_by_external_id(self, request: Request) -> Response:
        """Create the customer with this external id, or replace the fields of the one that has it."""
        body = await request.json()
        fields = validate_external(decode_body(body, BODY), request.argument, look_for_cards=may_contain(body))
        assert fields.external_id is not None
        path = f"/customers/external/{fields.external_id}"
        change = self._change_request(request, path, body, lambda _: fields)
        answer = await actions.put_by_external_id(
            self._database, self._recorder, self._id_generator, fields.external_id, change, fields
        )
        return _changed(answer)

    def _change_request(
        self, request: Request, path: str, body: bytes, edit: Callable[[Customer], CustomerFields]
    ) -> ChangeRequest:
        key = idempotency_key_of(request.idempotency_key(), f"{request.method} {path}", body)
        only_create = (request.header("if-none-match") or "").strip() == "*"
        return ChangeRequest(request.shop_id, self._clock.now(), edit, if_match_of(request), key, only_create)

    async def list(self, request: Request) -> Response | Stream:
        query = FILTERS.query_of(request)
        email, external_id, q = without_blanks(query.get("email")), query.get("external_id"), query.get("q")
        if q is not None:
            check_text(q)
        filter = Filter(email, external_id, q) if storable(external_id) else NOBODY
        customers = store.Customers(await reader_for(request, self._database), request.shop_id, filter)
        return await LISTING.answer(request, customers, query, FILTERS.names)


def _found(request: Request, stored: StoredCustomer) -> Response:
    etag, last_modified = _validators_of(stored.customer.id, stored.version, stored.updated_at)
    link = _subscriptions_of(stored.customer.id)
    if_none_match = request.header("if-none-match")
    if if_none_match is not None and not none_match(if_none_match, stored.version):
        return Response(304, b"", [NO_STORE, etag, last_modified, link])
    return json_response(200, _encode(stored.customer), etag, last_modified, link)


def _changed(answer: StoredResponse) -> Response:
    """The response to a creation or a change. The customer may have been erased since the answer was stored."""
    response = stored_response(answer)
    if answer.location is not None and answer.status < 400:
        customer_id = answer.location[len("/customers/") :]
        validators = _validators_of(customer_id, answer.version or 1, answer.updated_at)
        response.headers += (*validators, _subscriptions_of(customer_id))
    return response


def _validators_of(customer_id: str, version: int, updated_at: int | None) -> Validators:
    """The headers ``ETag`` and ``Last-Modified`` of a customer. ``updated_at`` is ``None`` before its first change."""
    if updated_at is None:
        return _validators_at_creation(customer_id[:LENGTH_OF_START])
    return validators_of(version, updated_at // 1000)


@lru_cache(maxsize=4096)  # to read the time of an id takes longer than the rest of the two headers
def _validators_at_creation(start_of_id: str) -> Validators:
    """The headers of a customer that was never changed. The ids of 64 milliseconds have the same start."""
    return validators_of(1, moment_of(start_of_id.ljust(LENGTH_OF_ID, "0")) // 1000)


def _subscriptions_of(customer_id: str) -> tuple[str, str]:
    """The link to the customer's subscriptions (RFC 8288) [D]."""
    return "link", f'</subscriptions?customer={customer_id}>; rel="related"; title="subscriptions"'
