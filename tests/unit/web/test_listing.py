"""Long lists are read in chunks that are bounded by records and by bytes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecomcharge.base.errors import BadParameter
from ecomcharge.base.ids import CUSTOMER_PREFIX, LATEST_MOMENT, IdGenerator, first_id_at
from ecomcharge.storage.records import ALL_IDS, PER_CHUNK, IdRange
from ecomcharge.web.listing import CHUNK_BYTES, Listing, link_to, records_that_fit, selection_of
from ecomcharge.web.messages import Request, Response, Stream


@dataclass(frozen=True)
class Item:
    id: str
    text: str


class Items:
    """Stored items of one size, and how many of them each query returned."""

    def __init__(self, number: int, size: int) -> None:
        self.items = [Item(f"itm_{position:06}", "x" * size) for position in range(number)]
        self.reads: list[int] = []
        self.reads_in_background: list[bool] = []

    async def select(
        self,
        limit: int,
        ids: IdRange = ALL_IDS,
        *,
        newest_first: bool = False,
        offset: int = 0,
        in_background: bool = False,
    ) -> list[Item]:
        found = self._in(ids)[:: -1 if newest_first else 1][offset : offset + limit]
        self.reads.append(len(found))
        self.reads_in_background.append(in_background)
        return found

    async def count(self, ids: IdRange = ALL_IDS) -> int:
        return len(self._in(ids))

    def _in(self, ids: IdRange) -> list[Item]:
        return [item for item in self.items if ids.after < item.id < ids.before]


def encode(items: Sequence[Item]) -> bytes:
    return json.dumps([[item.id, item.text] for item in items]).encode()


LISTING = Listing("item", "items", re.compile(r"itm_\d{6}\Z"), "itm_", encode)


async def get(items: Items, query: str, method: str = "GET") -> tuple[list[str], dict[str, str], list[int]]:
    """The ids in the list, the headers of the response, and the sizes of the chunks of its body in bytes."""
    request = Request(method, "/items", query, lambda name: None)
    response = await LISTING.answer(request, items, dict(parse_qsl(query, keep_blank_values=True)))
    if isinstance(response, Response):
        chunks = [response.body]
    else:
        assert isinstance(response, Stream)
        chunks = [] if method == "HEAD" else [chunk async for chunk in response.chunks]
    return [id for id, _ in json.loads(b"".join(chunks) or b"[]")], dict(response.headers), [len(chunk) for chunk in chunks]


def whole_list(items: Items, query: str = "") -> tuple[list[str], list[int]]:
    """The ids in the list, and the sizes of its chunks in bytes."""
    ids, _, sizes = asyncio.run(get(items, query))
    return ids, sizes


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("number", [0, 1, PER_CHUNK - 1, PER_CHUNK, PER_CHUNK + 1, 3 * PER_CHUNK])
@pytest.mark.parametrize("size", [1, 3_000])
def test_a_list_contains_all_records_in_order(number: int, size: int, order: str) -> None:
    items = Items(number, size)
    found, _ = whole_list(items, f"order={order}")
    assert found == [item.id for item in items.items][:: -1 if order == "desc" else 1]


def test_small_records_are_read_two_hundred_at_a_time() -> None:
    items = Items(1_000, 10)
    whole_list(items)
    assert set(items.reads[:5]) == {PER_CHUNK}


def test_after_the_first_chunk_large_records_are_read_a_few_at_a_time() -> None:
    items = Items(300, 60_000)
    _, sizes = whole_list(items)
    assert items.reads[0] == PER_CHUNK
    assert max(items.reads[1:]) == CHUNK_BYTES // 60_000
    assert max(sizes[1:]) <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("query", "in_background"),
    [
        ("", [False, True, True, True, True]),
        ("order=desc", [False, True, True, True, True]),
        ("limit=200", [False]),
        ("limit=1000", [True]),
        ("page=1", [False]),
        ("page=50", [True]),
        ("per_page=1000", [True]),
    ],
)
def test_many_records_are_read_in_the_background(query: str, in_background: list[bool]) -> None:
    items = Items(4 * PER_CHUNK, 1)
    whole_list(items, query)
    assert items.reads_in_background == in_background


def test_a_record_larger_than_a_chunk_is_read_alone() -> None:
    assert records_that_fit(2, 10 * CHUNK_BYTES) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("number", [0, 1, PER_CHUNK, 3 * PER_CHUNK])
@pytest.mark.parametrize("query", ["count=true", "count=1", "count=true&order=desc", "count=true&limit=7", "count=true&page=1"])
def test_the_total_is_counted_on_request(query: str, number: int, method: str) -> None:
    _, headers, _ = asyncio.run(get(Items(number, 1), query, method))
    assert headers["x-total-count"] == str(number)


@pytest.mark.parametrize("query", ["", "count=false", "count=0", "limit=7", "page=1&count=false"])
def test_the_total_is_not_counted_unless_it_is_requested(query: str) -> None:
    _, headers, _ = asyncio.run(get(Items(3, 1), query))
    assert "x-total-count" not in headers


@given(st.integers(0, 20), st.integers(1, 6), st.sampled_from(["asc", "desc"]), st.sampled_from(["after", "before", "page"]))
def test_links_visit_every_record_once(number: int, size: int, order: str, start: str) -> None:
    """From the first page by ``next``, from the last one by ``prev``; each page has the order of the list."""

    async def visit() -> list[str]:
        seen: list[str] = []
        query: str | None = f"limit={size}&{start}=" if start != "page" else f"per_page={size}"
        query = f"{query}&order={order}"
        while query is not None:
            ids, headers, _ = await get(items, query)
            seen = ids + seen if start == "before" else seen + ids
            links = {rel: target for target, rel in re.findall(r'<([^>]+)>; rel="(\w+)"', headers.get("link", ""))}
            target = links.get("prev" if start == "before" else "next")
            query = None if target is None else target.removeprefix("/items?")
        return seen

    items = Items(number, 1)
    assert asyncio.run(visit()) == [item.id for item in items.items][:: -1 if order == "desc" else 1]


def test_links_keep_the_parameters_of_the_selection() -> None:
    query = "order=desc&created_from=2026-01-01T00:00:00%2B03:00&created_to=2026-12-31&count=true&limit=1"
    request = Request("GET", "/items", "", lambda name: None)
    link = link_to(request, dict(parse_qsl(query)), (), "next", limit=1, after="itm_000001")
    kept = "order=desc&created_from=2026-01-01T00%3A00%3A00%2B03%3A00&created_to=2026-12-31&count=true"
    assert link == f'</items?{kept}&limit=1&after=itm_000001>; rel="next"'


DAY = 24 * 60 * 60 * 1000
NOON = 1_798_113_600_000  # 2026-12-24T12:00Z
MIDNIGHT = NOON - DAY // 2


@pytest.mark.parametrize(
    ("created_from", "first"),
    [
        ("2026-12-24T12:00:00Z", NOON),
        ("2026-12-24t12:00z", NOON),
        ("2026-12-24T12:00", NOON),
        ("2026-12-24 12:00", NOON),
        ("2026-12-24T15:00:00+03:00", NOON),
        ("2026-12-24T15:00:00 03:00", NOON),
        ("2026-12-24 15:00 03:00", NOON),
        ("2026-12-24T12:00:00.001Z", NOON + 1),
        ("2026-12-24", MIDNIGHT),
        ("1970-01-01", 0),
    ],
)
def test_created_from_includes_its_moment(created_from: str, first: int) -> None:
    ids = selection_of({"created_from": created_from}, CUSTOMER_PREFIX).ids
    assert first_id_at(CUSTOMER_PREFIX, first) > ids.after
    if first > 0:
        last = f"{CUSTOMER_PREFIX}{(first << 22) - 1:016x}"
        assert not last > ids.after


@pytest.mark.parametrize(
    ("created_to", "end"),
    [
        ("2026-12-24T12:00:00Z", NOON),
        ("2026-12-24T12:00:00.001Z", NOON + 1),
        ("2026-12-24", MIDNIGHT + DAY),
        ("20261224", MIDNIGHT + DAY),
        ("2026-12-24T00:00", MIDNIGHT),
    ],
)
def test_created_to_excludes_its_moment_and_includes_its_day(created_to: str, end: int) -> None:
    ids = selection_of({"created_to": created_to}, CUSTOMER_PREFIX).ids
    assert not first_id_at(CUSTOMER_PREFIX, end) < ids.before
    assert IdGenerator(CUSTOMER_PREFIX).generate(end - 1) < ids.before


@pytest.mark.parametrize("created_from", ["0001-01-01", "0001-01-01T00:00:00+23:00", "1969-12-31T23:59:59Z", "1970-01-01"])
@pytest.mark.parametrize("created_to", ["2109-05-15", "2110-01-01", "9999-12-31T23:59:59-23:00"])
def test_times_without_ids_are_accepted(created_from: str, created_to: str) -> None:
    ids = selection_of({"created_from": created_from, "created_to": created_to}, CUSTOMER_PREFIX).ids
    assert ids.after < first_id_at(CUSTOMER_PREFIX, 0)
    assert IdGenerator(CUSTOMER_PREFIX).generate(LATEST_MOMENT) < ids.before


@pytest.mark.parametrize(
    "query",
    [
        {"created_from": "2110-01-01"},
        {"created_to": "1969-12-31"},
        {"created_to": "1970-01-01T00:00Z"},
        {"created_from": "2026-12-25", "created_to": "2026-12-23"},
    ],
)
def test_an_empty_range_contains_no_id(query: dict[str, str]) -> None:
    ids = selection_of(query, CUSTOMER_PREFIX).ids
    for moment in (0, NOON, LATEST_MOMENT):
        assert not ids.after < IdGenerator(CUSTOMER_PREFIX).generate(moment) < ids.before


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"order": "up"}, "Order must be asc or desc"),
        ({"order": ""}, "Order must be asc or desc"),
        ({"count": "yes"}, "Count must be true or false"),
        ({"count": ""}, "Count must be true or false"),
        ({"created_from": "yesterday"}, "Created from must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ({"created_from": ""}, "Created from must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ({"created_to": "24.12.2026"}, "Created to must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ({"created_to": "2026-12-24T25:00"}, "Created to must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
        ({"created_to": "2026-12-24\0"}, "Created to must be an ISO 8601 time such as 2026-12-24T08:00:00Z"),
    ],
)
def test_an_invalid_selection_is_refused(query: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameter) as refused:
        selection_of(query, CUSTOMER_PREFIX)
    assert refused.value.message == message
