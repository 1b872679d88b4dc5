"""Lists of records: the whole list, a page by cursor, or a page by number."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Generic
from urllib.parse import urlencode

from ecomcharge.base.calendar import parse_moment
from ecomcharge.base.errors import BadParameter
from ecomcharge.base.ids import LATEST_MOMENT, first_id_at, last_id_before
from ecomcharge.base.validation import BOOLEANS
from ecomcharge.storage.records import ALL_IDS, PER_CHUNK, IdRange, R, Records
from ecomcharge.web.messages import JSON, NO_STORE, Headers, Request, Response, Stream, json_response
from ecomcharge.web.router import single_slashes

DEFAULT_LIMIT: Final = 20
MAXIMUM_LIMIT: Final = 1000
DEEPEST_OFFSET: Final = 100_000
CHUNK_BYTES: Final = 256 * 1024  # the usual size of a chunk, when the records are large
MANY: Final = 2 * PER_CHUNK  # from so many records on, a page is read in the background
DAY: Final = 24 * 60 * 60 * 1000
SELECTION: Final = ("order", "created_from", "created_to", "count")  # parameters of every list, which links keep
TOTAL_COUNT: Final = "x-total-count"

Encode = Callable[[Sequence[R]], bytes]

_OFFSET_AFTER_SPACE: Final = re.compile(r"([T ].*\d) (\d\d:?\d\d)\Z", re.ASCII)  # a plus that is not encoded becomes a space


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that a list request selects, without its page and the filters of its kind."""

    ids: IdRange = ALL_IDS
    newest_first: bool = False
    counted: bool = False


class Listing(Generic[R]):
    """The lists of one kind of record.

    ``noun`` and ``plural`` are for error messages; ``id`` is the pattern of an id, ``prefix`` its first characters.
    """

    def __init__(self, noun: str, plural: str, id: re.Pattern[str], prefix: str, encode: Encode[R]) -> None:
        self._noun = noun
        self._plural = plural
        self._id = id
        self._prefix = prefix
        self._encode = encode

    async def answer(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str] = ()
    ) -> Response | Stream:
        """The response to a list request. Links keep the query parameters named in ``filters``. Raises ``BadParameter``."""
        selection = selection_of(query, self._prefix)
        if "limit" in query or "after" in query or "before" in query:
            page, links = await self._cursor_page(request, records, query, filters, selection)
        elif "page" in query or "per_page" in query:
            page, links = await self._numbered_page(request, records, query, filters, selection)
        else:
            return await self._whole_list(request, records, selection)
        headers = [("link", ", ".join(links))] if links else []
        if selection.counted:
            headers.append(total_count(await records.count(selection.ids)))
        return json_response(200, self._encode(page), *headers)

    async def _whole_list(self, request: Request, records: Records[R], selection: Selection) -> Response | Stream:
        first = await records.select(PER_CHUNK, selection.ids, newest_first=selection.newest_first)
        if len(first) < PER_CHUNK:
            return json_response(200, self._encode(first), *([total_count(len(first))] if selection.counted else []))
        headers = [JSON, NO_STORE]
        if selection.counted and request.method == "HEAD":  # its body is not read, so that nothing counts it
            headers.append(total_count(await records.count(selection.ids)))
        return Stream(200, headers, self._json_chunks(first, records, selection, headers))

    async def _json_chunks(
        self, chunk: list[R], records: Records[R], selection: Selection, headers: Headers
    ) -> AsyncIterator[bytes]:
        """The JSON array of all records. ``chunk`` has the first ones; memory holds one chunk at a time.

        Adds the number of records to ``headers`` at the end, if it is wanted: records may be created in the meantime.
        """
        separator, limit, total = b"[", PER_CHUNK, 0
        while chunk:
            encoded = self._encode(chunk)
            yield separator + encoded[1:-1]
            total += len(chunk)
            if len(chunk) < limit:
                break
            await asyncio.sleep(0)  # lets other requests run
            separator, limit = b",", records_that_fit(len(chunk), len(encoded))
            last = chunk[-1].id
            ids = selection.ids.narrowed_to(IdRange(before=last) if selection.newest_first else IdRange(after=last))
            chunk = await records.select(limit, ids, newest_first=selection.newest_first, in_background=True)
        if selection.counted:
            headers.append(total_count(total))
        yield b"]"

    async def _cursor_page(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str], selection: Selection
    ) -> tuple[list[R], list[str]]:
        """The records of the page, and its links."""
        if "after" in query and "before" in query:
            raise BadParameter("Only one of after and before can be given")
        if "page" in query or "per_page" in query:
            raise BadParameter("Page and per_page cannot be combined with limit, after or before")
        limit = number_of(query, "limit", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        backwards = "before" in query
        cursor = cursor_of(query, "before" if backwards else "after", self._noun, self._id)
        descending = selection.newest_first != backwards  # a page before the cursor is read from the cursor, then reversed
        ids = selection.ids
        if cursor:
            ids = ids.narrowed_to(IdRange(before=cursor) if descending else IdRange(after=cursor))
        found = await records.select(limit + 1, ids, newest_first=descending, in_background=limit >= MANY)
        more, page = len(found) > limit, found[:limit]
        if backwards:
            page.reverse()
        links = []
        has_next, has_previous = (bool(cursor), more) if backwards else (more, bool(cursor))
        if page and has_next:
            links.append(link_to(request, query, filters, "next", limit=limit, after=page[-1].id))
        if page and has_previous:
            links.append(link_to(request, query, filters, "prev", limit=limit, before=page[0].id))
        return page, links

    async def _numbered_page(
        self, request: Request, records: Records[R], query: Mapping[str, str], filters: Sequence[str], selection: Selection
    ) -> tuple[list[R], list[str]]:
        """The records of the page, and its links."""
        size = number_of(query, "per_page", DEFAULT_LIMIT, MAXIMUM_LIMIT)
        number = number_of(query, "page", 1, DEEPEST_OFFSET)
        offset = (number - 1) * size
        if offset > DEEPEST_OFFSET:
            raise BadParameter(f"Page is too deep (at most {DEEPEST_OFFSET} {self._plural} can be skipped); use after")
        found = await records.select(
            size + 1,
            selection.ids,
            newest_first=selection.newest_first,
            offset=offset,
            in_background=offset + size >= MANY,
        )
        links = []
        if len(found) > size and number < DEEPEST_OFFSET and number * size <= DEEPEST_OFFSET:
            links.append(link_to(request, query, filters, "next", page=number + 1, per_page=size))
        if number > 1:
            links.append(link_to(request, query, filters, "prev", page=number - 1, per_page=size))
        return found[:size], links


def records_that_fit(count: int, encoded_bytes: int) -> int:
    """How many records to read next, after ``count`` records of ``encoded_bytes`` together."""
    return max(1, min(PER_CHUNK, count * CHUNK_BYTES // encoded_bytes))


def link_to(request: Request, query: Mapping[str, str], filters: Sequence[str], relation: str, **position: int | str) -> str:
    """A link to another page (RFC 8288). It is relative to the host, so that it is right behind a proxy that keeps paths.

    ``position`` has only numbers and ids, which need no quoting.
    """
    kept = [(name, query[name]) for name in (*filters, *SELECTION) if name in query]
    parameters = [f"{name}={value}" for name, value in position.items()]
    if kept:
        parameters.insert(0, urlencode(kept))
    return f'<{single_slashes(request.path)}?{"&".join(parameters)}>; rel="{relation}"'


def selection_of(query: Mapping[str, str], prefix: str, *, newest_first: bool = False) -> Selection:
    """The values of the parameters in ``SELECTION``. ``newest_first`` is the order unless one is given.

    ``prefix`` is that of the ids. Raises ``BadParameter``.
    """
    if query.keys().isdisjoint(SELECTION):
        return Selection(newest_first=newest_first)
    order, counted = query.get("order"), BOOLEANS.get(query.get("count", "false").lower())
    if order not in (None, "asc", "desc"):
        raise BadParameter("Order must be asc or desc")
    if counted is None:
        raise BadParameter("Count must be true or false")
    return Selection(_created(query, prefix), newest_first if order is None else order == "desc", counted)


def _created(query: Mapping[str, str], prefix: str) -> IdRange:
    """The ids of the records that were created from ``created_from`` on and before ``created_to``."""
    start, end = _moment(query, "created_from"), _moment(query, "created_to", end_of_day=True)
    after = ALL_IDS.after if start is None else last_id_before(prefix, min(start, LATEST_MOMENT + 1))
    before = ALL_IDS.before if end is None or end > LATEST_MOMENT else first_id_at(prefix, max(end, 0))
    return IdRange(after, before)


def _moment(query: Mapping[str, str], name: str, *, end_of_day: bool = False) -> int | None:
    """UTC milliseconds of an ISO 8601 date or time; ``None`` if the parameter is absent.

    A time without an offset is UTC. A date is the beginning of the day, or with ``end_of_day`` the end of it.
    """
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = parse_moment(_OFFSET_AFTER_SPACE.sub(r"\1+\2", text.upper()))
    except ValueError as error:
        raise BadParameter(f"{_readable(name)} must be an ISO 8601 time such as 2026-12-24T08:00:00Z") from error
    return moment + DAY if end_of_day and _is_date(text) else moment


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def total_count(total: int) -> tuple[str, str]:
    return TOTAL_COUNT, str(total)


def cursor_of(query: Mapping[str, str], name: str, noun: str, id: re.Pattern[str]) -> str:
    """The id in a query parameter; empty if the parameter is absent. Raises ``BadParameter``."""
    cursor = query.get(name, "")
    if cursor and not id.match(cursor):
        raise BadParameter(f"{name.capitalize()} must be {'an' if noun[0] in 'aeiou' else 'a'} {noun} id")
    return cursor


def number_of(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """A query parameter that is a whole number from 1 to ``maximum``. Raises ``BadParameter``."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= maximum):
        raise BadParameter(f"{_readable(name)} must be a whole number between 1 and {maximum}")
    return int(text)


def _readable(name: str) -> str:
    return name.replace("_", " ").capitalize()


def storable(*values: str | None) -> bool:
    """Whether these texts can be stored: no stored text contains a NUL, and PostgreSQL refuses it in a parameter."""
    return not any(value is not None and "\0" in value for value in values)
