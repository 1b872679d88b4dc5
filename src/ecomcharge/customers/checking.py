"""Checks the records of an import as the API checks requests: a few of them here, many in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, Self

import msgspec

from ecomcharge.customers.files import Read, UnreadableLine
from ecomcharge.customers.model import Customer, IdentifiedBody, checked_with_id
from ecomcharge.errors import Invalid
from ecomcharge.ids import ANY_TIME, IdMint

Records = Sequence[tuple[int, bytes]]  # each behind the number of its line

WORTH_A_PROCESS: Final = 5_000  # records; fewer are checked sooner than another process has started
MOST_PROCESSES: Final = 4


class Refusal(msgspec.Struct, frozen=True):
    """Why a line was not taken, in the words of the API. Never what it held."""

    line: int
    message: str
    errors: dict[str, list[str]] = {}


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A valid customer: the ``nth`` record of its block, on this line. Its id may be one that we ``minted``."""

    nth: int
    line: int
    minted: bool
    customer: Customer

    @property
    def recognisable(self) -> bool:
        return not self.minted or self.customer.external_id is not None


class Checked(msgspec.Struct, frozen=True):
    candidates: list[Candidate]
    refused: list[Refusal]


_DECODER: Final = msgspec.msgpack.Decoder(Checked)


def check(records: Records, read: Read, ids: IdMint) -> Checked:
    """``ids`` are for those that come without: an ``IdMint.reserve`` of as many as there are records."""
    found = Checked([], [])
    for nth, (line, record) in enumerate(records, 1):
        try:
            check_one(found, nth, line, read(record), ids)
        except UnreadableLine as error:
            found.refused.append(Refusal(line, str(error)))
    return found


def check_one(found: Checked, nth: int, line: int, body: IdentifiedBody, ids: IdMint) -> None:
    try:
        id, fields = checked_with_id(body)
    except Invalid as invalid:
        errors = {name: list(texts) for name, texts in invalid.errors.items()}
        found.refused.append(Refusal(line, invalid.message, errors))
    else:
        customer = Customer(id or ids.mint(ANY_TIME), *msgspec.structs.astuple(fields))
        found.candidates.append(Candidate(nth, line, id is None, customer))


def _check_and_pack(records: Records, read: Read, ids: IdMint) -> bytes:
    return msgspec.msgpack.encode(check(records, read, ids))


class Checkers:
    """Checks blocks of records, in processes of their own once there are many. To be used in a ``with``."""

    def __init__(self) -> None:
        self.processes = max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0)) - 1))
        self._pool: ProcessPoolExecutor | None = None
        self._records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def check(self, records: Records, read: Read, ids: IdMint) -> Awaitable[Checked]:
        self._records += len(records)
        if self._records <= WORTH_A_PROCESS:
            here: asyncio.Future[Checked] = asyncio.get_running_loop().create_future()
            here.set_result(check(records, read, ids))
            return here
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, initializer=_leave_interrupts_to_the_parent)
        packed = asyncio.get_running_loop().run_in_executor(self._pool, _check_and_pack, records, read, ids)
        return _unpacked(packed)


async def _unpacked(packed: Awaitable[bytes]) -> Checked:
    return _DECODER.decode(await packed)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
