"""Lists of records: the whole list, a page by cursor, or a page by number."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Generic
from urllib.parse import urlencode

from ecomcharge.base.errors import BadParameter
from ecomcharge.storage.records import PER_CHUNK, R, Records
from ecomcharge.web.messages import JSON, NO_STORE, Request, Response, Stream, json_response

DEFAULT_LIMIT: Final = 20
MAXIMUM_LIMIT: Final = 1000
DEEPEST_OFFSET: Final = 100_000
CHUNK_BYTES: Final = 256 * 1024  # the usual size of a chunk, when the records are large

Encode = Callable[[Sequence[R]], bytes]


class Listing(Generic[R]):
    """The lists of one kind of record.

    ``noun`` and ``plural`` are for error messages; ``id`` is the pattern of an id, ``prefix`` its first characters.
    """

    def __init__(self, noun: str, plural: str, id: re.Pattern[str], prefix: str, encode: Encode[R]) -> None:
        self._noun = noun
        self._plural = plural
        self._id = id
        self._past_every_id = f"{prefix}g"
        self._encode = encode

    async def answer(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str] = ()
    ) -> Response | Stream:
        """The response to a list request. Links keep the query parameters named in ``filters``. Raises ``BadParameter``."""
        if "limit" in query or "after" in query or "before" in query:
            return await self._cursor_page(request, records, query, filters)
        if "page" in query or "per_page" in query:
            return await self._numbered_page(request, records, query, filters)
        return await self._whole_list(records)

    async def _whole_list(self, records: Records[R]) -> Response | Stream:
        first = await records.after("", PER_CHUNK)
        if len(first) < PER_CHUNK:
            return json_response(200, self._encode(first))
        return Stream(200, [JSON, NO_STORE], self._json_chunks(first, records))

    async def _json_chunks(self, chunk: list[R], records: Records[R]) -> AsyncIterator[bytes]:
        """The JSON array of all records. ``chunk`` has the first ones; memory holds one chunk at a time."""
        separator, limit = b"[", PER_CHUNK
        while chunk:
            encoded = self._encode(chunk)
            yield separator + encoded[1:-1]
            if len(chunk) < limit:
                break
            await asyncio.sleep(0)  # lets other requests run
            separator, limit = b",", records_that_fit(len(chunk), len(encoded))
            chunk = await records.after(chunk[-1].id, limit)
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


def records_that_fit(count: int, encoded_bytes: int) -> int:
    """How many records to read next, after ``count`` records of ``encoded_bytes`` together."""
    return max(1, min(PER_CHUNK, count * CHUNK_BYTES // encoded_bytes))


def link_to(request: Request, query: Mapping[str, str], filters: Sequence[str], relation: str, **position: int | str) -> str:
    """A link to another page (RFC 8288). It is relative to the host, so that it is right behind a proxy that keeps paths.

    ``position`` has only numbers and ids, which need no quoting.
    """
    kept = [(name, query[name]) for name in filters if name in query]
    parameters = [f"{name}={value}" for name, value in position.items()]
    if kept:
        parameters.insert(0, urlencode(kept))
    return f'<{request.path}?{"&".join(parameters)}>; rel="{relation}"'


def number_of(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """A query parameter that is a whole number from 1 to ``maximum``. Raises ``BadParameter``."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise BadParameter(f"{name.replace('_', ' ').capitalize()} must be a whole number between 1 and {maximum}")
    return int(text)


def storable(*values: str | None) -> bool:
    """Whether these texts can be stored: no stored text contains a NUL, and PostgreSQL refuses it in a parameter."""
    return not any(value is not None and "\0" in value for value in values)
