"""Long lists are read in chunks that are bounded by records and by bytes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from ecomcharge.storage.records import PER_CHUNK
from ecomcharge.web.listing import CHUNK_BYTES, Listing, records_that_fit
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

    async def after(self, after: str, limit: int) -> list[Item]:
        found = [item for item in self.items if item.id > after][:limit]
        self.reads.append(len(found))
        return found

    async def before(self, before: str, limit: int) -> list[Item]:
        raise NotImplementedError

    async def page(self, offset: int, limit: int) -> list[Item]:
        raise NotImplementedError


def encode(items: Sequence[Item]) -> bytes:
    return json.dumps([[item.id, item.text] for item in items]).encode()


def whole_list(items: Items) -> tuple[list[list[str]], list[int]]:
    """The list and the sizes of its chunks in bytes."""

    async def run() -> tuple[list[list[str]], list[int]]:
        listing = Listing("item", "items", re.compile(r"itm_\d{6}\Z"), "itm_", encode)
        response = await listing.answer(Request("GET", "/items", "", lambda name: None), items, {})
        if isinstance(response, Response):
            return json.loads(response.body), [len(response.body)]
        assert isinstance(response, Stream)
        chunks = [chunk async for chunk in response.chunks]
        return json.loads(b"".join(chunks)), [len(chunk) for chunk in chunks]

    return asyncio.run(run())


@pytest.mark.parametrize("number", [0, 1, PER_CHUNK - 1, PER_CHUNK, PER_CHUNK + 1, 3 * PER_CHUNK])
@pytest.mark.parametrize("size", [1, 3_000])
def test_a_list_contains_all_records_in_order(number: int, size: int) -> None:
    items = Items(number, size)
    found, _ = whole_list(items)
    assert found == [[item.id, item.text] for item in items.items]


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


def test_a_record_larger_than_a_chunk_is_read_alone() -> None:
    assert records_that_fit(2, 10 * CHUNK_BYTES) == 1
