"""Lists in pages. The next page is the one that the ``Link`` header of a page names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import httpx
import msgspec

from ecomcharge.client.calls import Call, Read

T = TypeVar("T")
PAGE_SIZE: Final = 200

Query = Mapping[str, str]


class Page(Generic[T]):
    """Some records of a list, and the query of the next page; ``None`` after the last one."""

    def __init__(self, records: list[T], following: Query | None) -> None:
        self.records = records
        self.following = following


class Pages(Generic[T]):
    """The pages of a list, in order. A server without pages answers everything in one page without a ``Link``."""

    def __init__(self, call: Callable[[Query], Call[Page[T]]], query: Query) -> None:
        self._call = call
        self._query: Query | None = query

    def next(self) -> Call[Page[T]] | None:
        """The call of the next page; ``None`` after the last one."""
        return None if self._query is None else self._call(self._query)

    def received(self, page: Page[T]) -> list[T]:
        following = page.following
        self._query = None if following == self._query else following  # a server that repeats a page would never end
        return page.records


def page_of(kind: type[T]) -> Read[Page[T]]:
    """Reads a page. Only the query of the link is used: a link cannot send the credentials to another host."""
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]

    def read(response: httpx.Response) -> Page[T]:
        link = response.links.get("next")
        return Page(decoder.decode(response.content), dict(httpx.URL(link["url"]).params) if link else None)

    return read
