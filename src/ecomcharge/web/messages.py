"""Requests and responses, the same for RSGI and ASGI."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from ecomcharge.base.errors import BadParameter, MalformedBody, UnsupportedContentType
from ecomcharge.base.json_faults import BYTE_ORDER_MARK, TOO_MANY_EXPONENTS, explain_encoding, has_costly_numbers
from ecomcharge.storage.database import ReplicaReader
from ecomcharge.web.idempotency import CREATED, StoredResponse

Headers = list[tuple[str, str]]

MAXIMUM_PARAMETERS: Final = 64

_PLAIN_QUERY: Final = re.compile(r"[a-z_]+=[\w.-]*(?:&[a-z_]+=[\w.-]*){0,9}\Z", re.ASCII)

FORWARDED_FOR: Final = "x-forwarded-for"
JSON: Final = ("content-type", "application/json; charset=utf-8")
NO_STORE: Final = ("cache-control", "no-store")


@dataclass(slots=True)
class StaleRead:
    """The replica that a list or export reads, because its request allows an answer that is some seconds old."""

    seconds: int
    reader: ReplicaReader | None

    async def close(self, *, has_answered: bool) -> None:
        """After this the primary is read."""
        reader, self.reader = self.reader, None
        if reader is not None:
            await reader.close(has_answered=has_answered)


class Request:
    """A request. The adapter makes it; the dispatcher sets the attributes from ``request_id`` on."""

    __slots__ = (
        *("answer_headers", "argument", "header", "method", "path", "query_string", "request_id", "route", "shop_id"),
        "stale_read",
    )

    def __init__(self, method: str, path: str, query_string: str, header: Callable[[str], str | None]) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.header = header  # by lower-case name; None if it is absent or not printable ASCII
        self.request_id = ""
        self.route = ""
        self.argument = ""
        self.shop_id = 0
        self.answer_headers: Sequence[tuple[str, str]] = ()  # added to the response, also to an error response
        self.stale_read: StaleRead | None = None

    def has(self, name: str) -> bool:
        """Whether a header is present, even if its value is not printable ASCII."""
        raise NotImplementedError

    def has_one_host(self) -> bool:
        """Whether ``Host`` is present once, as RFC 9112 requires; a request of HTTP/1.0 may be without it."""
        return True

    def peer(self) -> str:
        """The address of the other end of the connection."""
        raise NotImplementedError

    def all_of(self, name: str) -> str:
        """All headers with this lower-case name, joined with commas."""
        raise NotImplementedError

    def forwarded_for(self) -> str:
        """All ``X-Forwarded-For`` headers: a proxy may add its own header after one that the client forged."""
        return self.all_of(FORWARDED_FOR)

    async def read_body(self) -> bytes:
        """Raises ``BodyTooLarge``, ``BodyTooSlow``, or ``MalformedBody`` when the client closes the connection."""
        raise NotImplementedError

    def idempotency_key(self) -> str | None:
        """The idempotency key, or ``None``. An unreadable one becomes an empty one, which is refused later."""
        for name in ("idempotency-key", "requestid"):
            if self.has(name):
                return self.header(name) or ""
        return None

    def query(self) -> dict[str, str]:
        """The query parameters; of a repeated one the last. Raises ``BadParameter`` above ``MAXIMUM_PARAMETERS``."""
        return dict(self.parameters())

    def parameters(self) -> list[tuple[str, str]]:
        """Name and value of each query parameter. Raises ``BadParameter`` above ``MAXIMUM_PARAMETERS``."""
        text = self.query_string
        if not text:
            return []
        if _PLAIN_QUERY.match(text):  # the usual case; parse_qsl takes five times as long
            return [(name, value) for name, _, value in (part.partition("=") for part in text.split("&"))]
        try:
            return parse_qsl(text, keep_blank_values=True, max_num_fields=MAXIMUM_PARAMETERS)
        except ValueError as error:
            raise BadParameter("Too many query parameters") from error

    async def json(self) -> bytes:
        """The body of a request that must be JSON, checked to be UTF-8, without a byte order mark.

        Raises ``UnsupportedContentType``, ``MalformedBody``, and as ``read_body``.
        """
        content_type = self.header("content-type")
        if content_type != "application/json" and not self._is_json(content_type):
            raise UnsupportedContentType
        body = await self.read_body()
        if not body.isascii():
            body = body.removeprefix(BYTE_ORDER_MARK)  # PHP and Windows editors write it
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise MalformedBody(explain_encoding(body, error, content_type)) from error
        if has_costly_numbers(body):
            raise MalformedBody(TOO_MANY_EXPONENTS)
        return body

    def _is_json(self, content_type: str | None) -> bool:
        if content_type is None:
            return not self.has("content-type")
        media_type = content_type.partition(";")[0].strip().lower()
        return media_type in ("application/json", "text/json") or (
            media_type.startswith("application/") and media_type.endswith("+json")
        )


class Response(msgspec.Struct, gc=False):
    """A response with its whole body. ``code`` is that of an error, for the access log."""

    status: int
    body: bytes
    headers: Headers
    code: str | None = None


@dataclass(slots=True)
class Stream:
    """A response whose body is produced in chunks, because it may be long."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    code: str | None = None


def without_blanks(text: str | None) -> str | None:
    """A query parameter that never has a blank: a ``+`` in it is a plus, although a form means a blank by it [W]."""
    return text and text.replace(" ", "+")


def json_response(status: int, body: bytes, *headers: tuple[str, str]) -> Response:
    return Response(status, body, [JSON, NO_STORE, *headers])


def stored_response(stored: StoredResponse) -> Response:
    """The response that an action stored or replays; a replay has a header of its own [D]."""
    headers = [JSON, NO_STORE]
    if stored.location and stored.status == CREATED:
        headers.append(("location", stored.location))
    if stored.replayed:
        headers.append(("idempotent-replayed", "true"))
    return Response(stored.status, stored.body, headers)
