"""The source of an import, as blocks of validated records."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import IdGenerator
from ecomcharge.customers import store
from ecomcharge.customers.bulk.files import CustomerFile
from ecomcharge.customers.bulk.options import ALL_ACCEPTS, AS_THE_API, Rules, digest_under
from ecomcharge.customers.bulk.validation_pool import BlockValidation, Records, ValidatedBlock, ValidationPool
from ecomcharge.customers.model import IdentifiedBody
from ecomcharge.storage.database import Database

RECORDS_PER_BLOCK: Final = 2_000


class Checkpoint(NamedTuple):
    """A position in a file: the number of records before it, and the digest of them and of what decides their meaning.

    ``digests`` has one for each set of exceptions (``Rules.accepts``) with which the file may have been imported.
    """

    records: int
    digests: Mapping[frozenset[str], str]


@dataclass(frozen=True)
class BlockPosition:
    """The position of a block in its source.

    ``earlier`` are checkpoints within the block, where the import of a shorter version of the file may have ended.
    """

    accepts: frozenset[str] = frozenset()  # of this import
    records_before: int = 0
    earlier: Sequence[Checkpoint] = ()
    end: Checkpoint | None = None  # none if the source has no checkpoints


@dataclass(frozen=True)
class Block:
    records: int
    validated: ValidatedBlock
    position: BlockPosition = BlockPosition()


async def blocks_of_file(
    database: Database, shop_id: int, file: CustomerFile, id_generator: IdGenerator, now: int, rules: Rules = AS_THE_API
) -> AsyncIterator[Block]:
    """Read a file and validate it, block by block. Raises ``ConfigurationError`` if a process of the pool is killed."""
    ends = set(await store.ends_of_imports(database, shop_id, RECORDS_PER_BLOCK))
    await asyncio.sleep(0)  # let the event loop run: reading may block, for example on an empty pipe
    pending: deque[tuple[int, BlockPosition, Awaitable[ValidatedBlock]]] = deque()
    with ValidationPool(shop_id, rules) as pool, _explain_killed_process():
        for records, position in _raw_blocks(file, rules, ends):
            validated = pool.validate(records, file.read, id_generator.reserve(now, len(records)))
            pending.append((len(records), position, validated))
            if len(pending) > 4 * pool.processes:
                yield await _finished(file, *pending.popleft())
        while pending:
            yield await _finished(file, *pending.popleft())


@contextlib.contextmanager
def _explain_killed_process() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as broken:
        raise ConfigurationError("a process that validates lines was killed; run the command again to continue") from broken


def _raw_blocks(file: CustomerFile, rules: Rules, ends: Set[int]) -> Iterator[tuple[Records, BlockPosition]]:
    """The blocks of a file, with a checkpoint at each of ``ends`` (where earlier imports ended) and at the end of each block.

    An earlier import that ended at the end of a block needs no additional checkpoint: either its checkpoint is the same, or
    it imported another file.
    """
    digest, begins = hashlib.sha256(file.heading), 0
    records = file.records()
    while block := list(itertools.islice(records, RECORDS_PER_BLOCK)):
        end, checkpoints = begins + len(block), []
        ends_within = sorted(each for each in ends if begins < each < end)
        for start, stop in itertools.pairwise((begins, *ends_within, end)):
            lines = b"".join(record for _, record in block[start - begins : stop - begins])
            # The last line may have no line ending, so the digest must not depend on the kind of line ending.
            digest.update(lines.replace(b"\r\n", b"\n"))
            digests = {accepts: digest_under(accepts, digest.hexdigest()) for accepts in ALL_ACCEPTS}
            checkpoints.append(Checkpoint(stop, digests))
        yield block, BlockPosition(rules.accepts, begins, checkpoints[:-1], checkpoints[-1])
        begins = end


async def _finished(file: CustomerFile, records: int, position: BlockPosition, validated: Awaitable[ValidatedBlock]) -> Block:
    block = Block(records, await validated, position)
    file.add_unused(block.validated.unused)
    return block


async def blocks_of_customers(
    shop_id: int, customers: AsyncIterator[msgspec.Struct], id_generator: IdGenerator, now: int, rules: Rules = AS_THE_API
) -> AsyncIterator[Block]:
    """Blocks of customers that another server sent (the client's ``Customer``). They have ids, so they need no checkpoints."""
    line, position = 0, 0  # in the source, and in the block
    validation = BlockValidation(shop_id, rules, id_generator.reserve(now, RECORDS_PER_BLOCK))
    async for customer in customers:
        line += 1
        position += 1
        fields = {name: getattr(customer, name, None) for name in IdentifiedBody.__struct_fields__}
        validation.add(position, line, IdentifiedBody(**fields))
        if position == RECORDS_PER_BLOCK:
            yield Block(position, validation.result)
            position, validation = 0, BlockValidation(shop_id, rules, id_generator.reserve(now, RECORDS_PER_BLOCK))
    if position:
        yield Block(position, validation.result)
