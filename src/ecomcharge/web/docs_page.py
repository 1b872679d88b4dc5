"""``GET /docs``: a page to read and try the API, complete in itself: it works without internet.

Swagger UI comes from a pinned package, under the Apache License 2.0, which is served beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Final

from swagger_ui_bundle import swagger_ui_path

from ecomcharge.base.errors import ConfigurationError, RouteNotFound
from ecomcharge.web.messages import Headers, Request, Response
from ecomcharge.web.router import Route

_BUNDLE: Final = "swagger-ui-bundle-v2"

# Swagger UI sets style attributes and draws its icons as data: images; everything else is a file of ours.
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
_GUARDS: Final = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file under ``/docs/``. ``ours`` lies in ``static``, the others in the package of Swagger UI."""

    name: str
    media_type: str
    ours: bool = False


ASSETS: Final = (
    Asset("docs.js", "text/javascript", ours=True),
    Asset("swagger-ui-bundle.js", "text/javascript"),
    Asset("swagger-ui.css", "text/css"),
    Asset("favicon-32x32.png", "image/png"),
    Asset("LICENSE", "text/plain"),
)


class DocsRoutes:
    """Reads the files once, at start-up. Raises ``ConfigurationError`` if one is missing."""

    def __init__(self) -> None:
        self._page = resources.files("ecomcharge.web").joinpath("static", "docs.html").read_bytes()
        self._files = {asset.name: File(asset.media_type, _content(asset)) for asset in ASSETS}

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/docs", self.page, needs_shop=False),
            Route("GET", "/docs/{}", self.file, needs_shop=False),
        ]

    async def page(self, request: Request) -> Response:
        headers = [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-cache"), *_GUARDS]
        return Response(200, self._page, headers)

    async def file(self, request: Request) -> Response:
        file = self._files.get(request.argument)
        if file is None:
            raise RouteNotFound
        return file.answer(request.header("if-none-match"))


class File:
    """A file in memory. Browsers keep it and ask each time whether it is still good, so an upgrade shows at once."""

    def __init__(self, media_type: str, content: bytes) -> None:
        self._content = content
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        content_type = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
        self._headers = [("content-type", content_type), ("etag", self._etag), ("cache-control", "no-cache"), *_GUARDS]

    def answer(self, if_none_match: str | None) -> Response:
        headers: Headers = list(self._headers)  # the server adds its own to it
        if if_none_match is not None and _matches(if_none_match, self._etag):
            return Response(304, b"", headers)
        return Response(200, self._content, headers)


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, section 13.1.2: by weak comparison, for a proxy that compresses makes the tag weak."""
    offered = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in offered or etag in offered


def _content(asset: Asset) -> bytes:
    if asset.ours:
        return resources.files("ecomcharge.web").joinpath("static", asset.name).read_bytes()
    if asset.name == "LICENSE":
        return _licence()
    return swagger_ui_path.joinpath(asset.name).read_bytes()  # type: ignore[no-any-return]


def _licence() -> bytes:
    for path in metadata.files(_BUNDLE) or ():
        if path.name == "LICENSE":
            return path.read_binary()
    raise ConfigurationError(f"The package {_BUNDLE} came without its licence")
