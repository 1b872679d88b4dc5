"""Customers in bulk: from a file or another server into a shop, and from a shop into a file.

An import goes in blocks of ``RECORDS_PER_BLOCK`` records, each one unit of work. Together with a block's customers
goes a mark: the digest of all that was read up to its end. A block whose mark is there is in already, so an import
that was killed goes on where it was, and a second import of the same file adds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

import msgspec

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.bulk.files import CustomerFile, Format, header_of, line_of
from ecomcharge.customers.bulk.validation_pool import Candidate, Checked, Checkers, Checking, Records, Refusal
from ecomcharge.customers.model import Customer, IdentifiedBody
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import chunks_of

OnDuplicate = Literal["skip", "update", "fail"]

RECORDS_PER_BLOCK: Final = 2_000


@dataclass
class ImportSummary:
    """What became of the lines of an import. ``already`` counts those that an earlier import of the same file took."""

    read: int = 0
    added: int = 0
    updated: int = 0
    duplicates: int = 0
    already: int = 0
    refused: int = 0

    def __iadd__(self, other: ImportSummary) -> ImportSummary:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self


class DuplicateCustomer(Exception):
    """With ``fail``: the line holds a customer whom the shop has. Nothing of its block was written."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class Duplicate(NamedTuple):
    """A candidate whom the shop has, under the id ``stored_id``."""

    candidate: Candidate
    stored_id: str


class Checkpoint(NamedTuple):
    """The beginning of a file: so many records, and the digest of their lines and of what stands before them."""

    records: int
    digest: str


@dataclass(frozen=True)
class Place:
    """Where in its source a block is: ``mark`` tells its end, ``earlier`` where a shorter version may have ended."""

    begins: int = 0  # how many records are before it
    earlier: Sequence[Checkpoint] = ()
    mark: Checkpoint | None = None  # none where it cannot be told


@dataclass(frozen=True)
class Block:
    records: int
    checked: Checked
    place: Place = Place()


async def blocks_of_file(
    database: Database, shop_id: int, file: CustomerFile, id_generator: IdGenerator, now: int
) -> AsyncIterator[Block]:
    """Raises ``ConfigurationError`` when a process that checks them is killed."""
    ends = set(await store.ends_of_imports(database, shop_id, RECORDS_PER_BLOCK))
    await asyncio.sleep(0)  # ends the turn: the file may be a pipe that nobody writes to
    under_way: deque[tuple[int, Place, Awaitable[Checked]]] = deque()
    with Checkers(shop_id) as checkers, _telling_of_a_killed_checker():
        for records, place in _raw_blocks(file, ends):
            checking = checkers.check(records, file.read, id_generator.reserve(now, len(records)))
            under_way.append((len(records), place, checking))
            if len(under_way) > 4 * checkers.processes:
                yield await _finished(*under_way.popleft())
        while under_way:
            yield await _finished(*under_way.popleft())


@contextlib.contextmanager
def _telling_of_a_killed_checker() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as broken:
        raise ConfigurationError("a process that checks lines was killed; run it again, and it goes on where it was") from broken


def _raw_blocks(file: CustomerFile, ends: Set[int]) -> Iterator[tuple[Records, Place]]:
    """Blocks of a file as they are read. Its digest is taken at the end of each, and where an earlier import ended.

    Not where one ended that is as long as this: that one's end is ours, or else it was another file.
    """
    digest, begins = hashlib.sha256(file.heading), 0
    records = file.records()
    while block := list(itertools.islice(records, RECORDS_PER_BLOCK)):
        end, marks = begins + len(block), []
        ends_within = sorted(each for each in ends if begins < each < end)
        for start, stop in itertools.pairwise((begins, *ends_within, end)):
            lines = b"".join(record for _, record in block[start - begins : stop - begins])
            digest.update(lines.replace(b"\r\n", b"\n"))  # nobody knows how a last line would have been ended
            marks.append(Checkpoint(stop, digest.hexdigest()))
        yield block, Place(begins, marks[:-1], marks[-1])
        begins = end


async def _finished(records: int, place: Place, checking: Awaitable[Checked]) -> Block:
    return Block(records, await checking, place)


async def blocks_of_customers(
    shop_id: int, customers: AsyncIterator[msgspec.Struct], id_generator: IdGenerator, now: int
) -> AsyncIterator[Block]:
    """Blocks of customers that another server sent (the client's ``Customer``). Their ids identify them: no checkpoint."""
    line, nth = 0, 0  # of the source, and of the block
    checking = Checking(shop_id, id_generator.reserve(now, RECORDS_PER_BLOCK))
    async for customer in customers:
        line += 1
        nth += 1
        checking.take(nth, line, IdentifiedBody(**msgspec.structs.asdict(customer)))
        if nth == RECORDS_PER_BLOCK:
            yield Block(nth, checking.checked)
            nth, checking = 0, Checking(shop_id, id_generator.reserve(now, RECORDS_PER_BLOCK))
    if nth:
        yield Block(nth, checking.checked)


@dataclass(frozen=True)
class Import:
    """How to import: into which shop, what to do with customers whom it has, and whether only to try."""

    database: Database
    id_generator: IdGenerator
    now: int
    shop_id: int
    on_duplicate: OnDuplicate = "skip"
    dry_run: bool = False

    async def run(self, blocks: AsyncIterator[Block], told: Callable[[ImportSummary, Sequence[Refusal]], None]) -> ImportSummary:
        """Import the blocks in their order; ``told`` of each as it is done. While one is written the next is read.

        Raises ``DuplicateCustomer``, or what the database raises; whole blocks before stay.
        """
        total, written = ImportSummary(), asyncio.get_running_loop().create_future()
        written.set_result((ImportSummary(), []))
        try:
            async for block in blocks:
                _tell(total, await written, told)
                written = asyncio.ensure_future(self._take(block))
            _tell(total, await written, told)
        finally:
            await asyncio.wait([written])
        return total

    async def _take(self, block: Block) -> tuple[ImportSummary, Sequence[Refusal]]:
        async def unit(tx: Transaction) -> ImportSummary:
            account = await self._write(tx, block)
            if self.dry_run:
                raise _OnlyTried(account)
            return account

        try:
            account = await self.database.write(unit)
        except _OnlyTried as tried:
            account = tried.account
        account.read, account.refused = block.records, len(block.checked.refused)
        return account, block.checked.refused

    async def _write(self, tx: Transaction, block: Block) -> ImportSummary:
        done = await self._records_done(tx, block.place)
        candidates = block.checked.candidates
        updating = self.on_duplicate == "update"
        wanted = [each for each in candidates if each.nth > done or (updating and each.recognisable)] if done else candidates
        account = ImportSummary(already=len(candidates) - len(wanted))
        await self._add(tx, wanted, account)
        return account

    async def _records_done(self, tx: Transaction, place: Place) -> int:
        """How many records of the block are in; marks that all are."""
        if place.mark is None:
            return 0
        if not await store.insert_checkpoint(tx, self.shop_id, place.mark.digest, place.mark.records, self.now):
            return place.mark.records - place.begins
        for mark in reversed(place.earlier):
            if await store.is_marked(tx, self.shop_id, mark.digest):
                return mark.records - place.begins
        return 0

    async def _add(self, tx: Transaction, wanted: Sequence[Candidate], account: ImportSummary) -> None:
        fresh, duplicates = await self._told_apart(tx, wanted)
        inserted = await store.insert_many(tx, [candidate.row for candidate in fresh])
        for candidate, is_new in zip(fresh, inserted, strict=True):
            if is_new:
                continue
            if candidate.minted:
                await self._insert_under_another_id(tx, candidate.customer)
            else:
                duplicates.append(Duplicate(candidate, candidate.id))
        account.added += len(wanted) - len(duplicates)
        await self._deal_with(tx, duplicates, account)

    async def _told_apart(self, tx: Transaction, wanted: Sequence[Candidate]) -> tuple[list[Candidate], list[Duplicate]]:
        """Those to insert, and those without an id whose external id another customer has.

        A candidate with an id is that customer and no other, for several customers of a store may share an external id.
        """
        external_ids = {each.external_id: None for each in wanted if each.minted and each.external_id is not None}
        if not external_ids:
            return list(wanted), []
        known = await store.ids_by_external_id(tx, self.shop_id, list(external_ids))
        fresh, duplicates = [], []
        for candidate in wanted:
            external_id = candidate.external_id
            if candidate.minted and external_id in known:
                duplicates.append(Duplicate(candidate, known[external_id]))
                continue
            fresh.append(candidate)
            if external_id in external_ids and await self._will_be_written(tx, candidate):
                known.setdefault(external_id, candidate.id)
        return fresh, duplicates

    async def _will_be_written(self, tx: Transaction, candidate: Candidate) -> bool:
        return candidate.minted or self.on_duplicate == "update" or not await store.has(tx, self.shop_id, candidate.id)

    async def _insert_under_another_id(self, tx: Transaction, customer: Customer) -> None:
        """Another process minted the same id in the same millisecond."""
        while not await store.insert(tx, self.shop_id, _with_id(customer, self.id_generator.generate(self.now))):
            pass

    async def _deal_with(self, tx: Transaction, duplicates: Sequence[Duplicate], account: ImportSummary) -> None:
        duplicates = sorted(duplicates, key=lambda duplicate: duplicate.candidate.nth)  # of two for one customer the later wins
        if duplicates and self.on_duplicate == "fail":
            raise DuplicateCustomer(duplicates[0].candidate.line)
        if self.on_duplicate == "skip":
            account.duplicates += len(duplicates)
            return
        for candidate, stored_id in duplicates:
            await store.update(tx, self.shop_id, _with_id(candidate.customer, stored_id))
            account.updated += 1


class _OnlyTried(Exception):
    """A dry run: undo what was written and say what it would have been."""

    def __init__(self, account: ImportSummary) -> None:
        super().__init__()
        self.account = account


def _with_id(customer: Customer, id: str) -> Customer:
    return msgspec.structs.replace(customer, id=id)


def _tell(
    total: ImportSummary,
    written: tuple[ImportSummary, Sequence[Refusal]],
    told: Callable[[ImportSummary, Sequence[Refusal]], None],
) -> None:
    account, refusals = written
    total += account
    told(total, refusals)


async def export_customers(database: Database, shop_id: int, format: Format) -> AsyncIterator[bytes]:
    """The customers of a shop in order of creation, a chunk of lines at a time."""
    yield header_of(format)
    async for chunk in chunks_of(store.Customers(database, shop_id)):
        yield b"".join(line_of(customer, format) for customer in chunk)
