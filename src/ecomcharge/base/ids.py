"""Identifiers: a prefix and 16 lower-case hex digits, as the documentation shows them (``cst_7aee5afb954c7ef7``).

The high 42 bits are milliseconds since 1970 and the low 22 bits are random. Ids rise strictly within a process, so they sort
by creation and inserts go to the end of the index. 42 bits last until 2109. Two processes that generate an id in the same
millisecond collide with a chance of one in four million; the primary key refuses the second insert, which is repeated with a
new id.
"""

from __future__ import annotations

import os
import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

RANDOM_BITS = 22
LATEST_MOMENT = 2**42 - 1  # in UTC milliseconds: the year 2109
LONGEST_STEP = 256  # from one id to the next in the same millisecond

CUSTOMER_PREFIX = "cst_"
PLAN_PREFIX = "pln_"
SUBSCRIPTION_PREFIX = "sbs_"
EVENT_PREFIX = "evt_"
WEBHOOK_PREFIX = "whk_"
CLOCK_MOVE_PREFIX = "mov_"


def _id_of(prefix: str) -> re.Pattern[str]:
    return re.compile(rf"{prefix}[0-9a-f]{{16}}\Z")


CUSTOMER_ID = _id_of(CUSTOMER_PREFIX)
PLAN_ID = _id_of(PLAN_PREFIX)
SUBSCRIPTION_ID = _id_of(SUBSCRIPTION_PREFIX)
EVENT_ID = _id_of(EVENT_PREFIX)
WEBHOOK_ID = _id_of(WEBHOOK_PREFIX)
CLOCK_MOVE_ID = _id_of(CLOCK_MOVE_PREFIX)
PAYMENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class IdGenerator:
    """Generates rising ids. One per process and kind of record; not shared between threads."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._last = 0
        self._random = _random_words()

    def generate(self, now: int) -> str:
        """A new id for the moment ``now`` (UTC milliseconds), later than every earlier id of this generator.

        When the clock goes back, or several ids are needed in one millisecond, the next id is the last one plus a small
        random step: the order of ids matters more than their time.
        """
        random = next(self._random)
        number = now << RANDOM_BITS | random >> 32 - RANDOM_BITS
        if number <= self._last:
            number = self._last + 1 + random % LONGEST_STEP
        self._last = number
        return f"{self._prefix}{number:016x}"

    def generate_after(self, previous: str, now: int) -> str:
        """A new id that sorts after ``previous``, an id of the same kind of any process.

        It is an id of the moment ``now`` unless ``previous`` is later, because the clock of its process was ahead or the
        sandbox clock was set back. Later ids of this generator are not affected.
        """
        id = self.generate(now)
        if id > previous:
            return id
        number = number_of(previous) + 1 + next(self._random) % LONGEST_STEP
        return f"{self._prefix}{number:016x}"

    def reserve(self, now: int, count: int) -> ReservedIds:
        """``count`` ids that another process may use: later than all earlier ids of this generator, and earlier than all its
        later ones.
        """
        number = now << RANDOM_BITS | next(self._random) >> 32 - RANDOM_BITS
        reserved = ReservedIds(self._prefix, max(self._last, number))
        self._last = reserved.last + count * LONGEST_STEP
        return reserved


@dataclass(frozen=True)
class ReservedIds:
    """Rising ids after the number ``last``. Iterate over it once, for at most the number of reserved ids."""

    prefix: str
    last: int

    def __iter__(self) -> Iterator[str]:
        number = self.last
        while True:
            for byte in os.urandom(1024):
                number += 1 + byte  # at most LONGEST_STEP
                yield f"{self.prefix}{number:016x}"


def moment_of(id: str) -> int:
    """The time of an id in UTC milliseconds. It can be later than the clock if ids were generated in quick succession."""
    return number_of(id) >> RANDOM_BITS


def number_of(id: str) -> int:
    """The 64 bits of an id."""
    return int(id[-16:], 16)


def row_number_of(id: str) -> int:
    """The 64 bits of an id as a signed number. The numbers of ids rise as the ids do."""
    return int(id[-16:], 16) - 2**63


def first_id_at(prefix: str, moment: int) -> str:
    """An id that sorts before all ids of that moment and later."""
    return f"{prefix}{moment << RANDOM_BITS:016x}"


def last_id_before(prefix: str, moment: int) -> str:
    """A text that sorts after all ids of earlier moments, and before all ids of that moment and later."""
    return f"{prefix}{(moment << RANDOM_BITS) - 1:016x}" if moment > 0 else prefix


def uuid_at(now: int) -> str:
    """A UUID, version 7 (RFC 9562): 74 random bits after the time, so rows go to the end of an index."""
    random = int.from_bytes(os.urandom(10), "big")
    number = now << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=number))


def _random_words() -> Iterator[int]:
    """32 random bits at a time, read from the system in blocks: a system call for each id would cost more than the id."""
    while True:
        yield from struct.unpack("256I", os.urandom(1024))
