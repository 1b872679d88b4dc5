"""Checks the records of an import as the API checks requests: a few of them here, many in processes of their own."""

from __future__ import annotations

import asyncio
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
from ecomcharge.customers.bulk.files import Read, UnreadableLine
from ecomcharge.customers.model import Customer, IdentifiedBody, validate_with_id
from ecomcharge.customers.store import CustomerRow, customer_of, row_of

Records = Sequence[tuple[int, bytes]]  # each behind the number of its line

WORTH_A_PROCESS: Final = 5_000  # records; fewer are checked sooner than another process has started
MOST_PROCESSES: Final = 4


class Refusal(msgspec.Struct, frozen=True):
    """Why a line was not taken, in the words of the API. Never what it held."""

    line: int
    message: str
    errors: dict[str, list[str]] = {}


class Candidate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A valid customer: the ``nth`` record of its block, on this line. Its id may be one that we ``minted``.

    Most of them are inserted and never looked at, so the customer stays a row until somebody does.
    """

    nth: int
    line: int
    minted: bool
    row: CustomerRow

    @property
    def customer(self) -> Customer:
        return customer_of(self.row)

    @property
    def id(self) -> str:
        id: str = self.row[1]
        return id

    @property
    def external_id(self) -> str | None:
        external_id: str | None = self.row[-1]
        return external_id

    @property
    def recognisable(self) -> bool:
        return not self.minted or self.external_id is not None


class Checked(msgspec.Struct, frozen=True):
    candidates: list[Candidate]
    refused: list[Refusal]


_DECODER: Final = msgspec.msgpack.Decoder(Checked)


class Checking:
    """Checks the customers of one block. ``ids`` are for those that come without one: reserved, as many as there are records."""

    def __init__(self, shop_id: int, ids: Iterable[str]) -> None:
        self._shop_id = shop_id
        self._free_ids = iter(ids)
        self.checked = Checked([], [])

    def take(self, nth: int, line: int, body: IdentifiedBody) -> None:
        try:
            id, fields = validate_with_id(body)
        except ValidationFailed as invalid:
            errors = {name: list(texts) for name, texts in invalid.errors.items()}
            self.checked.refused.append(Refusal(line, invalid.message, errors))
        else:
            row = row_of(self._shop_id, id or next(self._free_ids), fields)
            self.checked.candidates.append(Candidate(nth, line, id is None, row))


def check(shop_id: int, records: Records, read: Read, ids: Iterable[str]) -> Checked:
    checking = Checking(shop_id, ids)
    for nth, (line, record) in enumerate(records, 1):
        try:
            checking.take(nth, line, read(record))
        except UnreadableLine as error:
            checking.checked.refused.append(Refusal(line, str(error)))
    return checking.checked


def _check_and_pack(shop_id: int, records: Records, read: Read, ids: Iterable[str]) -> bytes:
    return msgspec.msgpack.encode(check(shop_id, records, read, ids))


class Checkers:
    """Checks blocks of records, in processes of their own once there are many and these have started.

    To be used in a ``with``.
    """

    def __init__(self, shop_id: int) -> None:
        self._shop_id = shop_id
        self.processes = max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0)) - 1))
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future[int] = Future()  # is done when the first process is
        self._records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def check(self, records: Records, read: Read, ids: Iterable[str]) -> Awaitable[Checked]:
        self._records += len(records)
        if self._records > WORTH_A_PROCESS and self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_begin_to_check)
            self._started = self._pool.submit(os.getpid)
        if not self._started.done():
            here: asyncio.Future[Checked] = asyncio.get_running_loop().create_future()
            here.set_result(check(self._shop_id, records, read, ids))
            return here
        packed = asyncio.get_running_loop().run_in_executor(self._pool, _check_and_pack, self._shop_id, records, read, ids)
        packed.add_done_callback(lambda packed: packed.cancelled() or packed.exception())  # of those that nobody waits for
        return _Unpacked(packed)


@dataclass(frozen=True)
class _Unpacked:
    """What a block comes to when it is awaited; it need not be."""

    packed: Awaitable[bytes]

    def __await__(self) -> Generator[Any, None, Checked]:
        return _DECODER.decode((yield from self.packed.__await__()))


def _begin_to_check() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to deal with
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    collect_rarely()


def collect_rarely() -> None:
    """Records come and go in their thousands and leave no cycles of garbage behind."""
    gc.set_threshold(200_000)


def _end_with_the_parent() -> None:
    """It may be killed, and then nobody tells us."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
