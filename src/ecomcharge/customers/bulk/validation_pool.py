"""Validates the records of an import as the API validates requests: a few in this process, many in a pool of processes."""

from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from ecomcharge.base.errors import ValidationFailed
from ecomcharge.base.validation import message_of
from ecomcharge.customers.bulk.files import UNUSED_MAXIMUM, Read, ReadBody, UnreadableLine
from ecomcharge.customers.bulk.options import Rules
from ecomcharge.customers.model import Customer, IdentifiedBody
from ecomcharge.customers.store import INSERT, CustomerRow, customer_of, row_of

Records = Sequence[tuple[int, bytes]]  # pairs of line number and record

POOL_MINIMUM_RECORDS: Final = 5_000  # with fewer records the start of a process takes longer than their validation
MAXIMUM_PROCESSES: Final = 4
_EXTERNAL_ID: Final = INSERT.columns.index("external_id")


class RejectedRecord(msgspec.Struct, frozen=True):
    """A record that failed validation, with the messages of the API. It never contains the data of the record."""

    line: int
    message: str
    errors: dict[str, list[str]] = {}


class Candidate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A valid customer. ``position`` counts the records of its block from 1; ``has_new_id``: the record had no id.

    ``needs``: the exceptions of ``Rules`` without which it would be refused.

    The customer is kept as a database row, because most candidates are inserted as they are.
    """

    position: int
    line: int
    has_new_id: bool
    row: CustomerRow
    needs: Sequence[str] = ()

    @property
    def customer(self) -> Customer:
        return customer_of(self.row)

    @property
    def id(self) -> str:
        id: str = self.row[1]
        return id

    @property
    def external_id(self) -> str | None:
        external_id: str | None = self.row[_EXTERNAL_ID]
        return external_id

    @property
    def is_identifiable(self) -> bool:
        """Whether a stored copy of this customer can be found."""
        return not self.has_new_id or self.external_id is not None


class ValidatedBlock(msgspec.Struct, frozen=True):
    """``unused``: the first ``UNUSED_MAXIMUM`` names of values that have no field."""

    candidates: list[Candidate]
    rejected: list[RejectedRecord]
    unused: list[str]


_DECODER: Final = msgspec.msgpack.Decoder(ValidatedBlock)


class BlockValidation:
    """Validates the customers of one block into ``result``. ``ids`` are reserved ids, at least one for each record."""

    def __init__(self, shop_id: int, rules: Rules, ids: Iterable[str]) -> None:
        self._shop_id = shop_id
        self._rules = rules
        self._free_ids = iter(ids)
        self.result = ValidatedBlock([], [], [])

    def add(self, position: int, line: int, body: IdentifiedBody) -> None:
        found: dict[str, list[str]] = {}
        if isinstance(body, ReadBody):
            self._add_unused(body.unused)
            found = body.errors or {}
        try:
            id, fields, needs = self._rules.validate(body)
        except ValidationFailed as invalid:
            errors = {name: list(texts) for name, texts in invalid.errors.items()} | found
            self.result.rejected.append(RejectedRecord(line, message_of(errors), errors))
            return
        if found:
            self.result.rejected.append(RejectedRecord(line, message_of(found), found))
            return
        customer = Customer(id or next(self._free_ids), *msgspec.structs.astuple(fields))
        row = row_of(self._shop_id, customer)
        self.result.candidates.append(Candidate(position, line, id is None, row, needs))

    def _add_unused(self, names: Sequence[str]) -> None:
        unused = self.result.unused
        unused.extend(name for name in names if len(unused) < UNUSED_MAXIMUM and name not in unused)


def validate_block(shop_id: int, rules: Rules, records: Records, read: Read, ids: Iterable[str]) -> ValidatedBlock:
    validation = BlockValidation(shop_id, rules, ids)
    for position, (line, record) in enumerate(records, 1):
        try:
            validation.add(position, line, read(record))
        except UnreadableLine as error:
            validation.result.rejected.append(RejectedRecord(line, str(error)))
    return validation.result


def _validate_and_encode(shop_id: int, rules: Rules, records: Records, read: Read, ids: Iterable[str]) -> bytes:
    return msgspec.msgpack.encode(validate_block(shop_id, rules, records, read, ids))


class ValidationPool:
    """Validates blocks of records. Starts processes when there are many records, and uses them as soon as they run.

    Use it in a ``with`` statement.
    """

    def __init__(self, shop_id: int, rules: Rules) -> None:
        self._shop_id = shop_id
        self._rules = rules
        self.processes = max(1, min(MAXIMUM_PROCESSES, len(os.sched_getaffinity(0)) - 1))
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future[int] = Future()  # done when the first process runs
        self._records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def validate(self, records: Records, read: Read, ids: Iterable[str]) -> Awaitable[ValidatedBlock]:
        self._records += len(records)
        if self._records > POOL_MINIMUM_RECORDS and self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_initialize_process)
            self._started = self._pool.submit(os.getpid)
        if not self._started.done():
            done: asyncio.Future[ValidatedBlock] = asyncio.get_running_loop().create_future()
            done.set_result(validate_block(self._shop_id, self._rules, records, read, ids))
            return done
        work = functools.partial(_validate_and_encode, self._shop_id, self._rules, records, read, ids)
        encoded = asyncio.get_running_loop().run_in_executor(self._pool, work)
        # Retrieve the exception, or asyncio logs it for each result that is not awaited.
        encoded.add_done_callback(lambda encoded: encoded.cancelled() or encoded.exception())
        return _DecodedBlock(encoded)


@dataclass(frozen=True)
class _DecodedBlock:
    """Decodes a block when it is awaited. An unused block costs no decoding."""

    encoded: Awaitable[bytes]

    def __await__(self) -> Generator[Any, None, ValidatedBlock]:
        return _DECODER.decode((yield from self.encoded.__await__()))


def _initialize_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    collect_rarely()


def collect_rarely() -> None:
    """Let the garbage collector run less often: an import creates thousands of records and no reference cycles."""
    gc.set_threshold(200_000)


def _exit_with_parent() -> None:
    """End this process when the parent ends. A killed parent cannot stop its processes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
