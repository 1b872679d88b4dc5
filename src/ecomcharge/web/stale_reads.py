"""The preference ``stale`` of a request (RFC 7240): a list or export may come from a replica that is some seconds behind."""

from __future__ import annotations

import re
from typing import Final

from ecomcharge.storage.database import Database, Reader
from ecomcharge.web.messages import Request, StaleRead

PREFER: Final = "prefer"
APPLIED: Final = "preference-applied"
STALE: Final = "stale"
LONGEST_STALE_SECONDS: Final = 600  # a higher value counts as this one

_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_BALANCED: Final = re.compile(rf'(?:{_QUOTED}|[^"])*')
_PREFERENCE: Final = re.compile(rf'(?:{_QUOTED}|[^",])+')  # a quoted text may contain commas
_NAME: Final = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*")
_SECONDS: Final = re.compile(r'=[ \t]*("?)([0-9]{1,9})\1[ \t]*(?:;|\Z)')  # parameters of the preference may follow


async def reader_for(request: Request, database: Database) -> Reader:
    """What a list or an export reads: the primary, unless the request allows a stale answer and a replica is recent enough.

    If the replica fails, the dispatcher calls the handler again, which then gets the primary.
    """
    if not request.has(PREFER) or request.stale_read is not None:
        return database
    seconds = stale_seconds_of(request.all_of(PREFER))
    reader = await database.replica_reader(seconds) if seconds else None
    if reader is None:
        return database
    request.stale_read = StaleRead(seconds, reader)
    return reader


def stale_seconds_of(prefer: str) -> int:
    """The seconds of the preference ``stale`` in these headers, at most ``LONGEST_STALE_SECONDS``; 0 for none.

    As the RFC says, the first of several counts, and what is not understood is ignored.
    """
    if not _BALANCED.fullmatch(prefer):
        return 0
    for preference in _PREFERENCE.findall(prefer):
        name = _NAME.match(preference)
        if name is not None and name[1].lower() == STALE:
            seconds = _SECONDS.match(preference, name.end())
            return 0 if seconds is None else min(int(seconds[2]), LONGEST_STALE_SECONDS)
    return 0
