"""Finds the route of a request by method and path."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ecomcharge.base.errors import MethodNotAllowed, RouteNotFound
from ecomcharge.web.messages import Request, Response, Stream

SHAPE_PARTS: Final = 6  # of a path in the log
_SLASHES: Final = re.compile("/{2,}")

Handler = Callable[[Request], Awaitable[Response | Stream]]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and its path.

    ``{}`` is one segment of ``path``: the last one, the one before it, or each of these two. ``{*}`` at the end is all the
    rest, with its slashes: servers decode ``%2F`` before they pass a path on. An ``exact`` path is not reached with a slash at
    its end or two slashes in a row, so that a rule of a proxy for this path covers it.
    """

    method: str
    path: str
    handler: Handler
    needs_shop: bool = True
    exact: bool = False


class Router:
    def __init__(self, routes: Sequence[Route]) -> None:
        self._methods: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._methods.setdefault(route.path, {})[route.method] = route
        self._words = frozenset(word for route in routes for word in route.path.split("/"))
        self._exact = frozenset(route.path for route in routes if route.exact)
        self._open_ended = [
            (re.compile(path.removesuffix("{*}").replace("/", "/+").removesuffix("+")), methods)
            for path, methods in self._methods.items()
            if path.endswith("{*}")
        ]

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route and the value of its ``{}``; two values are joined by a slash.

        Raises ``RouteNotFound`` or ``MethodNotAllowed``.
        """
        argument = ""
        methods = self._methods.get(path)
        if methods is None:
            methods, argument = self._with_argument(path)
        route = methods.get(method) or methods.get("GET" if method == "HEAD" else "")
        if route is None:
            raise MethodNotAllowed(sorted(methods | {"HEAD": None} if "GET" in methods else methods))
        return route, argument

    def shape_of(self, path: str) -> str:
        """A path without what may be an id or personal data: each part that occurs in no route is ``{}``."""
        parts = path.split("/", SHAPE_PARTS + 1)
        shape = "/".join(part if part in self._words else "{}" for part in parts[1 : SHAPE_PARTS + 1])
        return f"/{shape}/..." if len(parts) > SHAPE_PARTS + 1 else f"/{shape}"

    def _with_argument(self, path: str) -> tuple[dict[str, Route], str]:
        complete, path = path, single_slashes(path).removesuffix("/")
        if path in self._methods and path not in self._exact:  # the path ended with a slash, or had two slashes in a row
            return self._methods[path], ""
        head, _, argument = path.rpartition("/")
        methods = self._methods.get(f"{head}/{{}}")
        if methods is None:
            for start, open_ended in self._open_ended:
                if (match := start.match(complete)) is not None:
                    return open_ended, complete[match.end() :]
        if methods is None:  # the argument may be the last segment but one
            before, _, name = path.rpartition("/")
            head, _, argument = before.rpartition("/")
            methods = self._methods.get(f"{head}/{{}}/{name}")
        if methods is None:  # or both last segments are arguments
            methods = self._methods.get(f"{head}/{{}}/{{}}")
            argument = f"{argument}/{name}"
        if methods is None or not argument:
            raise RouteNotFound
        return methods, argument


def single_slashes(path: str) -> str:
    """A path without doubled slashes, as clients make them that join an address and a path [W]."""
    return _SLASHES.sub("/", path) if "//" in path else path
