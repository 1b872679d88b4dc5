"""``GET /docs``: the API description in Swagger UI. It loads nothing from other servers.

``static/swagger-ui`` holds unchanged files of the package swagger-ui-dist under the Apache License 2.0; ``/docs/LICENSE`` serves
the licence. ``make swagger-ui`` copies them from the version that ``requirements/npm`` pins.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from ecomcharge.base.errors import RouteNotFound
from ecomcharge.web.messages import Headers, Request, Response
from ecomcharge.web.router import Route

# Swagger UI needs inline styles and data: images. All other files come from this server.
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SECURITY_HEADERS: Final = (
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file under ``/docs/``, from ``folder``."""

    name: str
    media_type: str
    folder: str = "static/swagger-ui"


ASSETS: Final = (
    Asset("docs.js", "text/javascript", "static"),
    Asset("swagger-ui-bundle.js", "text/javascript"),
    Asset("swagger-ui.css", "text/css"),
    Asset("favicon-32x32.png", "image/png"),
    Asset("LICENSE", "text/plain"),
    Asset("NOTICE", "text/plain"),
)


class DocsRoutes:
    """Reads the files once, when it is created."""

    def __init__(self) -> None:
        web = resources.files("ecomcharge.web")
        self._page = web.joinpath("static", "docs.html").read_bytes()
        self._files = {each.name: File(each.media_type, web.joinpath(each.folder, each.name).read_bytes()) for each in ASSETS}

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/docs", self.page, needs_shop=False),
            Route("GET", "/docs/{}", self.file, needs_shop=False),
        ]

    async def page(self, request: Request) -> Response:
        headers = [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-cache"), *_SECURITY_HEADERS]
        return Response(200, self._page, headers)

    async def file(self, request: Request) -> Response:
        file = self._files.get(request.argument)
        if file is None:
            raise RouteNotFound
        return file.answer(request.header("if-none-match"))


class File:
    """A file in memory, with an ETag: browsers cache it and revalidate it on each use."""

    def __init__(self, media_type: str, content: bytes) -> None:
        self._content = content
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        content_type = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
        self._headers = [("content-type", content_type), ("etag", self._etag), ("cache-control", "no-cache"), *_SECURITY_HEADERS]

    def answer(self, if_none_match: str | None) -> Response:
        headers: Headers = list(self._headers)  # a copy, because the dispatcher appends to it
        if if_none_match is not None and _matches(if_none_match, self._etag):
            return Response(304, b"", headers)
        return Response(200, self._content, headers)


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, section 13.1.2: weak comparison, because a proxy that compresses makes the tag weak."""
    offered = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in offered or etag in offered
