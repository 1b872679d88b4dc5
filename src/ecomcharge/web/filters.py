"""The filters of a list: query parameters that are named like a field of the listed objects.

A field that is no filter is refused, because a client that filters by it takes the whole list for the result. A parameter
that is no field is ignored, as the platform does [W].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ecomcharge.base.errors import BadParameter
from ecomcharge.web.messages import Request

NAME_MAXIMUM: Final = 60  # characters of a name in a message
_OF_ARRAY: Final = re.compile(r"\[[0-9]*\]\Z")  # PHP writes an array of one value as name[]=value or name[0]=value


class Filters:
    """The filters of one kind of list. ``plural`` is for messages; ``fields`` are the fields of an object."""

    def __init__(self, plural: str, names: tuple[str, ...], fields: Iterable[str]) -> None:
        self.names = names
        self._plural = plural
        self._known = frozenset((*names, *fields))

    def query_of(self, request: Request) -> dict[str, str]:
        """The query parameters, a filter without the brackets of an array.

        Raises ``BadParameter`` for a field that is no filter, and for a filter with several values.
        """
        query: dict[str, str] = {}
        for name, value in request.parameters():
            filter = _OF_ARRAY.sub("", name)
            if filter not in self.names:
                if name.partition("[")[0] in self._known:
                    raise BadParameter(self._refusal(name))
                query[name] = value
            elif query.setdefault(filter, value) != value:
                raise BadParameter(f"{self._plural.capitalize()} can be filtered by one value of {filter} only")
        return query

    def _refusal(self, name: str) -> str:
        known = f"; the filters are {', '.join(self.names)}" if self.names else ""
        return f"{self._plural.capitalize()} cannot be filtered by {name[:NAME_MAXIMUM]}{known}"
