"""Lists: all of them streamed, a page by cursor, or a page by number, the same for every kind of record."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Generic
from urllib.parse import urlencode

from ecomcharge.base.errors import BadParameter
from ecomcharge.storage.records import PER_CHUNK, R, Records, chunks_of
from ecomcharge.web.messages import JSON, NO_STORE, Request, Response, Stream, json_response

DEFAULT_LIMIT: Final = 20
MAXIMUM_LIMIT: Final = 1000
DEEPEST_OFFSET: Final = 100_000

Encode = Callable[[Sequence[R]], bytes]


class Listing(Generic[R]):
    """``noun`` and ``plural`` are for sentences; ``id`` is the pattern of an id, ``prefix`` its beginning."""

    def __init__(self, noun: str, plural: str, id: re.Pattern[str], prefix: str, encode: Encode[R]) -> None:
        self._noun = noun
        self._plural = plural
        self._id = id
        self._past_every_id = f"{prefix}g"
        self._encode = encode

    async def answer(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str] = ()
    ) -> Response | Stream:
        """``filters`` are the query parameters that a link to another page keeps. Raises ``BadParameter``."""
        if "limit" in query or "after" in query or "before" in query:
            return await self._cursor_page(request, records, query, filters)
        if "page" in query or "per_page" in query:
            return await self._numbered_page(request, records, query, filters)
        return await self._everything(records)

    async def _everything(self, records: Records[R]) -> Response | Stream:
        chunks = chunks_of(records)
        first: list[R] = await anext(chunks, [])
        if len(first) < PER_CHUNK:
            return json_response(200, self._encode(first))
        return Stream(200, [JSON, NO_STORE], self._as_array(first, chunks))

    async def _as_array(self, first: list[R], rest: AsyncIterator[list[R]]) -> AsyncIterator[bytes]:
        """One JSON array out of chunks of records."""
        yield self._encode(first)[:-1]
        async for chunk in rest:
            yield b"," + self._encode(chunk)[1:-1]
        yield b"]"

    async def _cursor_page(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str]
    ) -> Response:
        if "after" in query and "before" in query:
            raise BadParameter("Only one of after and before can be given")
        if "page" in query or "per_page" in query:
            raise BadParameter("Page and per_page cannot be combined with limit, after or before")
        limit = number_of(query, "limit", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        backwards = "before" in query
        cursor = query.get("before" if backwards else "after", "")
        if cursor and not self._id.match(cursor):
            raise BadParameter(f"{'Before' if backwards else 'After'} must be a {self._noun} id")
        if backwards:
            found = await records.before(cursor or self._past_every_id, limit + 1)
        else:
            found = await records.after(cursor, limit + 1)
        more = len(found) > limit
        page = found[-limit:] if backwards else found[:limit]
        links = []
        has_next, has_previous = (bool(cursor), more) if backwards else (more, bool(cursor))
        if page and has_next:
            links.append(link_to(request, query, filters, "next", limit=limit, after=page[-1].id))
        if page and has_previous:
            links.append(link_to(request, query, filters, "prev", limit=limit, before=page[0].id))
        return self._page(page, links)

    async def _numbered_page(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str]
    ) -> Response:
        size = number_of(query, "per_page", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        number = number_of(query, "page", 1, DEEPEST_OFFSET)
        offset = (number - 1) * size
        if offset > DEEPEST_OFFSET:
            raise BadParameter(f"Page is too deep (at most {DEEPEST_OFFSET} {self._plural} can be skipped); use after")
        found = await records.page(offset, size + 1)
        links = []
        if len(found) > size and number < DEEPEST_OFFSET and number * size <= DEEPEST_OFFSET:
            links.append(link_to(request, query, filters, "next", page=number + 1, per_page=size))
        if number > 1:
            links.append(link_to(request, query, filters, "prev", page=number - 1, per_page=size))
        return self._page(found[:size], links)

    def _page(self, page: list[R], links: list[str]) -> Response:
        headers = [("link", ", ".join(links))] if links else []
        return json_response(200, self._encode(page), *headers)


def link_to(request: Request, query: Mapping[str, str], filters: Sequence[str], relation: str, **position: int | str) -> str:
    """RFC 8288, with a reference relative to the host, which stays right behind any proxy that keeps paths.

    ``position`` is numbers and ids, which need no quoting.
    """
    kept = [(name, query[name]) for name in filters if name in query]
    parameters = [f"{name}={value}" for name, value in position.items()]
    if kept:
        parameters.insert(0, urlencode(kept))
    return f'<{request.path}?{"&".join(parameters)}>; rel="{relation}"'


def number_of(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """A whole number from 1 on out of a query. Raises ``BadParameter``."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise BadParameter(f"{name.replace('_', ' ').capitalize()} must be a whole number between 1 and {maximum}")
    return int(text)


def storable(*values: str | None) -> bool:
    """Whether any stored text could equal these: none holds a NUL, and engines differ over it."""
    return not any(value is not None and "\0" in value for value in values)
