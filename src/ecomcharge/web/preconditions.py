"""Conditional requests (RFC 9110): the entity tag and time of a record, ``If-Match`` and ``If-None-Match``.

The entity tag is the version of the record in quotes. It is strong: each change of the record increments the version.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ecomcharge.base.errors import BadParameter, PreconditionFailed
from ecomcharge.web.messages import Request

_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e]*")')
_LIST: Final = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*\Z")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Validators = tuple[tuple[str, str], tuple[str, str]]  # the headers ETag and Last-Modified


@lru_cache(maxsize=4096)  # under load many requests are about few seconds, and most records were never changed
def validators_of(version: int, second: int) -> Validators:
    """The headers ``ETag`` and ``Last-Modified`` of a record. ``second`` counts from 1970, UTC."""
    year, month, day, hour, minute, seconds, weekday, *_ = time.gmtime(second)
    date = f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year} {hour:02d}:{minute:02d}:{seconds:02d} GMT"
    return ("etag", f'"{version}"'), ("last-modified", date)


@dataclass(frozen=True, slots=True)
class IfMatch:
    """The versions that a change is allowed for. ``tags`` is ``None`` for ``*``: any version of a record that exists."""

    tags: frozenset[str] | None

    def check(self, version: int | None) -> None:
        """Raise ``PreconditionFailed`` unless the header allows a change of this version; ``None`` if there is no record."""
        if version is None or (self.tags is not None and f'"{version}"' not in self.tags):
            raise PreconditionFailed


def if_match_of(request: Request) -> IfMatch | None:
    """The header ``If-Match``, if there is one. Raises ``BadParameter`` if it is malformed."""
    if not request.has("if-match"):
        return None
    text = (request.header("if-match") or "").strip()
    if text == "*":
        return IfMatch(None)
    if not _LIST.match(text):
        raise BadParameter("If-Match must be entity tags in double quotes, separated by commas, or *")
    return IfMatch(frozenset(tag for weak, tag in _TAG.findall(text) if not weak))  # a weak tag never matches


def none_match(if_none_match: str, version: int) -> bool:
    """Whether the header ``If-None-Match`` permits a response with the record. A malformed header permits it."""
    if if_none_match.strip() == "*":
        return False
    return f'"{version}"' not in [tag for _, tag in _TAG.findall(if_none_match)]
