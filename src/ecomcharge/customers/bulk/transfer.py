"""Import of customers into a shop, and export of the customers of a shop.

An import writes blocks of ``RECORDS_PER_BLOCK`` records, each in one transaction, together with a checkpoint: the digest of
all records up to the end of the block. A block whose checkpoint is stored was imported before. So an interrupted import
continues where it stopped, and a second import of the same file adds nothing. An import with other exceptions from the rules
(``Rules.accepts``) adds the records that the earlier ones refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import msgspec

from ecomcharge.base.errors import CustomerErased
from ecomcharge.base.ids import IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.bulk.blocks import Block, BlockPosition
from ecomcharge.customers.bulk.formats import Format, header_of, line_of
from ecomcharge.customers.bulk.validation_pool import Candidate, RejectedRecord
from ecomcharge.customers.changes import ChangeRecorder, write_change
from ecomcharge.customers.model import Customer, change_of
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.records import StaleVersion, chunks_of, retry_on_conflict

OnDuplicate = Literal["skip", "update", "fail"]


@dataclass
class ImportSummary:
    """Numbers of records. ``already_imported``: an earlier import of the same file added them."""

    read: int = 0
    added: int = 0
    updated: int = 0
    duplicates: int = 0
    already_imported: int = 0
    rejected: int = 0

    def __iadd__(self, other: ImportSummary) -> ImportSummary:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self


OnBlock = Callable[[ImportSummary, Sequence[RejectedRecord]], None]  # the summary of all blocks so far


class DuplicateCustomer(Exception):
    """With ``fail``: the shop has the customer of this line. No record of the block was written."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class Duplicate(NamedTuple):
    """A candidate that the shop has already, with the id ``stored_id``."""

    candidate: Candidate
    stored_id: str


@dataclass(frozen=True)
class Import:
    """The parameters of an import. ``dry_run`` rolls every block back."""

    database: Database
    id_generator: IdGenerator
    recorder: ChangeRecorder
    now: int
    shop_id: int
    on_duplicate: OnDuplicate = "skip"
    dry_run: bool = False

    async def run(self, blocks: AsyncIterator[Block], on_block: OnBlock) -> ImportSummary:
        """Import the blocks in order, and call ``on_block`` after each. The next block is read while one is written.

        Raises ``DuplicateCustomer`` and the errors of the database; the blocks before the error are kept.
        """
        total, written = ImportSummary(), asyncio.get_running_loop().create_future()
        written.set_result((ImportSummary(), []))
        try:
            async for block in blocks:
                _report(total, await written, on_block)
                written = asyncio.ensure_future(self._import_block(block))
            _report(total, await written, on_block)
        finally:
            await asyncio.wait([written])
        return total

    async def _import_block(self, block: Block) -> tuple[ImportSummary, Sequence[RejectedRecord]]:
        async def unit(tx: Transaction) -> tuple[ImportSummary, list[RejectedRecord]]:
            summary, erased = await self._write(tx, block)
            if self.dry_run:
                raise _DryRun(summary, erased)
            return summary, erased

        try:
            summary, erased = await retry_on_conflict(self.database, unit)
        except _DryRun as dry_run:
            summary, erased = dry_run.summary, dry_run.erased
        rejected = sorted([*block.validated.rejected, *erased], key=lambda record: record.line)
        summary.read, summary.rejected = block.records, len(rejected)
        return summary, rejected

    async def _write(self, tx: Transaction, block: Block) -> tuple[ImportSummary, list[RejectedRecord]]:
        """The summary, and the records of customers that were erased."""
        done = await self._records_done(tx, block.position)
        candidates, updating = block.validated.candidates, self.on_duplicate == "update"
        wanted = candidates
        if done:
            wanted = [each for each in candidates if not _is_done(each, done) or (updating and each.is_identifiable)]
        summary = ImportSummary(already_imported=len(candidates) - len(wanted))
        erased = await self._erased(tx, wanted)
        await self._add(tx, [each for each in wanted if each.id not in erased], summary)
        return summary, [RejectedRecord(each.line, CustomerErased.message) for each in wanted if each.id in erased]

    async def _erased(self, tx: Transaction, wanted: Sequence[Candidate]) -> set[str]:
        """The ids of erased customers among the candidates: such an id is not used again."""
        ids = [each.id for each in wanted if not each.has_new_id]
        if not ids or not await store.has_erased(tx, self.shop_id):
            return set()
        return await store.erased_among(tx, self.shop_id, ids)

    async def _records_done(self, tx: Transaction, position: BlockPosition) -> Sequence[_Done]:
        """Which records of the block were imported before. Stores the checkpoint of the whole block."""
        end = position.end
        if end is None:
            return ()
        own = end.digests[position.accepts]
        is_new = await store.insert_checkpoint(tx, self.shop_id, own, end.records, self.now)
        checkpoints = [*position.earlier, end]
        digests = [digest for checkpoint in checkpoints for digest in checkpoint.digests.values()]
        known = await store.known_checkpoints(tx, self.shop_id, digests)
        if is_new:
            known.discard(own)
        return [
            (accepts, checkpoint.records - position.records_before)
            for checkpoint in checkpoints
            for accepts, digest in checkpoint.digests.items()
            if digest in known
        ]

    async def _add(self, tx: Transaction, wanted: Sequence[Candidate], summary: ImportSummary) -> None:
        new, duplicates = await self._split(tx, wanted)
        inserted = await store.insert_many(tx, [candidate.row for candidate in new])
        if await self._erased(tx, new):  # since this transaction looked: the deletion of the row made room for the insertion
            raise StaleVersion
        for candidate, is_inserted in zip(new, inserted, strict=True):
            if is_inserted:
                continue
            if candidate.has_new_id:
                await self._insert_with_another_id(tx, candidate.customer)
            else:
                duplicates.append(Duplicate(candidate, candidate.id))
        summary.added += len(wanted) - len(duplicates)
        await self._handle_duplicates(tx, duplicates, summary)

    async def _split(self, tx: Transaction, wanted: Sequence[Candidate]) -> tuple[list[Candidate], list[Duplicate]]:
        """Candidates to insert, and duplicates: records without an id whose external id another customer has.

        A record with an id is compared by the id only, because several customers of a shop may share an external id.
        """
        external_ids = {each.external_id: None for each in wanted if each.has_new_id and each.external_id is not None}
        if not external_ids:
            return list(wanted), []
        known = await store.ids_by_external_id(tx, self.shop_id, list(external_ids))
        new, duplicates = [], []
        for candidate in wanted:
            external_id = candidate.external_id
            if candidate.has_new_id and external_id in known:
                duplicates.append(Duplicate(candidate, known[external_id]))
                continue
            new.append(candidate)
            if external_id in external_ids and await self._will_be_written(tx, candidate):
                known.setdefault(external_id, candidate.id)
        return new, duplicates

    async def _will_be_written(self, tx: Transaction, candidate: Candidate) -> bool:
        return candidate.has_new_id or self.on_duplicate == "update" or not await store.has(tx, self.shop_id, candidate.id)

    async def _insert_with_another_id(self, tx: Transaction, customer: Customer) -> None:
        """For a new id that another process generated in the same millisecond."""
        while not await store.insert(tx, self.shop_id, _with_id(customer, self.id_generator.generate(self.now))):
            pass

    async def _handle_duplicates(self, tx: Transaction, duplicates: Sequence[Duplicate], summary: ImportSummary) -> None:
        # In the order of the file: the last of several records of one customer is kept.
        duplicates = sorted(duplicates, key=lambda duplicate: duplicate.candidate.position)
        if duplicates and self.on_duplicate == "fail":
            raise DuplicateCustomer(duplicates[0].candidate.line)
        if self.on_duplicate == "skip":
            summary.duplicates += len(duplicates)
            return
        ids = list({duplicate.stored_id: None for duplicate in duplicates})
        # Otherwise one customer that changes often could make the block begin again without end.
        await store.lock_for_change(tx, self.shop_id, ids, self.database.engine)
        stored = dict(zip(ids, await store.find_many_stored(tx, self.shop_id, ids), strict=True))
        for candidate, stored_id in duplicates:
            before = stored[stored_id]
            if before is None:  # deleted since this transaction tried to insert it
                raise StaleVersion
            change = change_of(before, candidate.customer, self.now)
            await write_change(tx, self.recorder, self.shop_id, change)
            stored[stored_id] = change.after
            summary.updated += 1


_Done = tuple[frozenset[str], int]  # the exceptions of an earlier import, and the number of records that it read


def _is_done(candidate: Candidate, done: Sequence[_Done]) -> bool:
    """Whether an earlier import added the customer: it read the record, and did not refuse it."""
    return any(candidate.position <= records and accepts.issuperset(candidate.needs) for accepts, records in done)


class _DryRun(Exception):
    """Rolls a block back, and carries the summary of what was written and the records of erased customers."""

    def __init__(self, summary: ImportSummary, erased: list[RejectedRecord]) -> None:
        super().__init__()
        self.summary = summary
        self.erased = erased


def _with_id(customer: Customer, id: str) -> Customer:
    return msgspec.structs.replace(customer, id=id)


def _report(total: ImportSummary, written: tuple[ImportSummary, Sequence[RejectedRecord]], on_block: OnBlock) -> None:
    summary, rejected = written
    total += summary
    on_block(total, rejected)


async def export_customers(database: Database, shop_id: int, format: Format, *, raw: bool = False) -> AsyncIterator[bytes]:
    """The customers of a shop in order of creation, in chunks of lines."""
    yield header_of(format)
    async for chunk in chunks_of(store.Customers(database, shop_id)):
        yield b"".join(line_of(customer, format, raw=raw) for customer in chunk)
