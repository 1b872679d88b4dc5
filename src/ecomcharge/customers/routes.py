"""The JSON door of customers: ``POST /customers``, ``GET /customers``, ``GET /customers/{id}``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlencode

import msgspec

from ecomcharge.clock import Clock
from ecomcharge.customers import actions, store
from ecomcharge.customers.model import BODY, Customer, body_of, checked
from ecomcharge.customers.store import Filter
from ecomcharge.errors import BadParameter, RecordNotFound
from ecomcharge.idempotency import attempt_of
from ecomcharge.ids import CUSTOMER_ID, CUSTOMER_PREFIX, IdMint
from ecomcharge.storage.database import Database
from ecomcharge.web.server import Route
from ecomcharge.web.wire import JSON, NO_STORE, Request, Response, Stream, json_response

DEFAULT_LIMIT: Final = 20
MAXIMUM_LIMIT: Final = 1000
DEEPEST_OFFSET: Final = 100_000
NOBODY: Final = Filter(email="")  # blank is never stored
PAST_EVERY_ID: Final = f"{CUSTOMER_PREFIX}g"

_encode = msgspec.json.Encoder().encode


class CustomerRoutes:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._mint = IdMint(CUSTOMER_PREFIX)

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/customers", self.create),
            Route("GET", "/customers", self.list),
            Route("GET", "/customers/{}", self.read),
        ]

    async def create(self, request: Request) -> Response:
        body = await request.json()
        fields = checked(body_of(body, BODY))
        attempt = attempt_of(_idempotency_key(request), "POST /customers", body)
        answer = await actions.create_customer(self._database, self._mint, self._clock.now(), request.shop_id, fields, attempt)
        headers = [("location", answer.location)] if answer.location else []
        if answer.replayed:
            headers.append(("idempotent-replayed", "true"))
        return json_response(answer.status, answer.body, *headers)

    async def read(self, request: Request) -> Response:
        if not CUSTOMER_ID.match(request.argument):
            raise RecordNotFound
        customer = await actions.read_customer(self._database, request.shop_id, request.argument)
        return json_response(200, _encode(customer))

    async def list(self, request: Request) -> Response | Stream:
        query = request.query()
        filter = Filter(email=query.get("email"), external_id=query.get("external_id"))
        if not _storable(filter):
            filter = NOBODY
        if "limit" in query or "after" in query or "before" in query:
            return await self._cursor_page(request, filter, query)
        if "page" in query or "per_page" in query:
            return await self._numbered_page(request, filter, query)
        return await self._everyone(request, filter)

    async def _everyone(self, request: Request, filter: Filter) -> Response | Stream:
        chunks = actions.every_customer(self._database, request.shop_id, filter)
        first: list[Customer] = await anext(chunks, [])
        if len(first) < actions.CUSTOMERS_PER_CHUNK:
            return json_response(200, _encode(first))
        return Stream(200, [JSON, NO_STORE], _as_array(first, chunks))

    async def _cursor_page(self, request: Request, filter: Filter, query: dict[str, str]) -> Response:
        if "after" in query and "before" in query:
            raise BadParameter("Only one of after and before can be given")
        if "page" in query or "per_page" in query:
            raise BadParameter("Page and per_page cannot be combined with limit, after or before")
        limit = _number(query, "limit", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        backwards = "before" in query
        cursor = query.get("before" if backwards else "after", "")
        if cursor and not CUSTOMER_ID.match(cursor):
            raise BadParameter(f"{'Before' if backwards else 'After'} must be a customer id")
        page = store.before if backwards else store.after
        found = await page(self._database, request.shop_id, filter, cursor or (PAST_EVERY_ID if backwards else ""), limit + 1)
        more = len(found) > limit
        customers = found[-limit:] if backwards else found[:limit]
        links = []
        later, earlier = (cursor, more) if backwards else (more, cursor)
        if customers and later:
            links.append(_link(request, query, "next", limit=limit, after=customers[-1].id))
        if customers and earlier:
            links.append(_link(request, query, "prev", limit=limit, before=customers[0].id))
        return _page(customers, links)

    async def _numbered_page(self, request: Request, filter: Filter, query: dict[str, str]) -> Response:
        size = _number(query, "per_page", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        number = _number(query, "page", 1, DEEPEST_OFFSET)
        offset = (number - 1) * size
        if offset > DEEPEST_OFFSET:
            raise BadParameter(f"Page is too deep (at most {DEEPEST_OFFSET} customers can be skipped); use after")
        found = await store.page(self._database, request.shop_id, filter, offset, size + 1)
        links = []
        if len(found) > size and number < DEEPEST_OFFSET and number * size <= DEEPEST_OFFSET:
            links.append(_link(request, query, "next", page=number + 1, per_page=size))
        if number > 1:
            links.append(_link(request, query, "prev", page=number - 1, per_page=size))
        return _page(found[:size], links)


def _idempotency_key(request: Request) -> str | None:
    """An empty or unreadable one is a mistake to be told of, not a request without a key."""
    for name in ("idempotency-key", "requestid"):
        if request.has(name):
            return request.header(name) or ""
    return None


async def _as_array(first: list[Customer], rest: AsyncIterator[list[Customer]]) -> AsyncIterator[bytes]:
    """One JSON array out of chunks of customers."""
    yield _encode(first)[:-1]
    async for chunk in rest:
        yield b"," + _encode(chunk)[1:-1]
    yield b"]"


def _page(customers: list[Customer], links: list[str]) -> Response:
    headers = [("link", ", ".join(links))] if links else []
    return json_response(200, _encode(customers), *headers)


def _link(request: Request, query: dict[str, str], relation: str, **position: int | str) -> str:
    """RFC 8288, with a reference relative to the host, which stays right behind any proxy that keeps paths.

    ``position`` is numbers and ids, which need no quoting.
    """
    kept = [(name, query[name]) for name in ("email", "external_id") if name in query]
    parameters = [f"{name}={value}" for name, value in position.items()]
    if kept:
        parameters.insert(0, urlencode(kept))
    return f'<{request.path}?{"&".join(parameters)}>; rel="{relation}"'


def _number(query: dict[str, str], name: str, default: int, maximum: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise BadParameter(f"{name.replace('_', ' ').capitalize()} must be a whole number between 1 and {maximum}")
    return int(text)


def _storable(filter: Filter) -> bool:
    """Whether any stored text could equal the filter's: none holds a NUL, and engines differ over it."""
    return not any("\0" in value for value in filter.params.values() if isinstance(value, str))
