"""What a request and a response are, whichever door they use, and how an error becomes a response."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from ecomcharge.base import errors
from ecomcharge.base.errors import BadParameter, BodyTooLarge, EcomchargeError, MalformedBody, UnsupportedContentType
from ecomcharge.web.idempotency import StoredResponse

Headers = list[tuple[str, str]]

MAXIMUM_PARAMETERS: Final = 64

# Every error has its row; a test goes through all of them. One without is answered as a fault of ours.
STATUS_OF: Final[dict[type[EcomchargeError], int]] = {
    errors.BadParameter: 400,
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.RecordNotFound: 404,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.BodyTooSlow: 408,
    errors.StillRunning: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedContentType: 415,
    errors.ValidationFailed: 422,
    errors.NotAnObject: 422,
    errors.IdempotencyKeyReused: 422,
    errors.TooManyRequests: 429,
    errors.ConfigurationError: 500,  # not 503, which says that nothing was written: a charge may already have been recorded
    errors.Unavailable: 503,
    errors.OutcomeUnknown: 504,
}

_PLAIN_QUERY: Final = re.compile(r"[a-z_]+=[\w.-]*(?:&[a-z_]+=[\w.-]*){0,9}\Z", re.ASCII)

JSON: Final = ("content-type", "application/json; charset=utf-8")
NO_STORE: Final = ("cache-control", "no-store")


class Request:
    """A request on its way through the program. A door makes it; the server fills in the second half."""

    __slots__ = ("answer_headers", "argument", "header", "method", "path", "query_string", "request_id", "route", "shop_id")

    def __init__(self, method: str, path: str, query_string: str, header: Callable[[str], str | None]) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.header = header  # by lower-case name; None where it is absent or not printable ASCII
        self.request_id = ""
        self.route = ""
        self.argument = ""
        self.shop_id = 0
        self.answer_headers: Sequence[tuple[str, str]] = ()  # for whatever answer it comes to, an error too

    def has(self, name: str) -> bool:
        """Whether a header is there, readable or not."""
        raise NotImplementedError

    def peer(self) -> str:
        """The address of the other end of the connection."""
        raise NotImplementedError

    def forwarded_for(self) -> str:
        """All of ``X-Forwarded-For``: a proxy may add a line of its own below a forged one."""
        raise NotImplementedError

    async def read_body(self) -> bytes:
        """Raises ``BodyTooLarge``, ``BodyTooSlow``, or ``MalformedBody`` when the client goes away."""
        raise NotImplementedError

    def idempotency_key(self) -> str | None:
        """An empty or unreadable one is a mistake to be told of, not a request without a key."""
        for name in ("idempotency-key", "requestid"):
            if self.has(name):
                return self.header(name) or ""
        return None

    def query(self) -> dict[str, str]:
        """The query parameters; of repeated ones the last. Raises ``BadParameter`` when there are very many."""
        text = self.query_string
        if not text:
            return {}
        if _PLAIN_QUERY.match(text):  # what paging sends; the general way takes five times as long
            return dict(part.split("=") for part in text.split("&"))
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAXIMUM_PARAMETERS))
        except ValueError as error:
            raise BadParameter("Too many query parameters") from error

    async def json(self) -> bytes:
        """The body of a request that must be JSON, as bytes that are UTF-8. Raises what is wrong with it."""
        content_type = self.header("content-type")
        if content_type != "application/json" and not self._is_json(content_type):
            raise UnsupportedContentType
        body = await self.read_body()
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise MalformedBody from error
        return body

    def _is_json(self, content_type: str | None) -> bool:
        if content_type is None:
            return not self.has("content-type")
        media_type = content_type.partition(";")[0].strip().lower()
        return media_type in ("application/json", "text/json") or (
            media_type.startswith("application/") and media_type.endswith("+json")
        )


class Response:
    __slots__ = ("body", "code", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Headers, code: str | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.code = code  # of an error, for the log


@dataclass(slots=True)
class Stream:
    """A response whose body is made while it is sent."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    code: str | None = None


def json_response(status: int, body: bytes, *headers: tuple[str, str]) -> Response:
    return Response(status, body, [JSON, NO_STORE, *headers])


def stored_response(answer: StoredResponse) -> Response:
    """What an action says to answer; a replay is marked [D]."""
    headers = [("location", answer.location)] if answer.location else []
    if answer.replayed:
        headers.append(("idempotent-replayed", "true"))
    return json_response(answer.status, answer.body, *headers)


def error_response(error: EcomchargeError) -> Response:
    """Every error is an object with ``message`` and, where fields are at fault, ``errors`` [S][W].

    What a 500 says is general: the sentence of such an error is the operator's and may name settings.
    """
    status = _status_of(error)
    if status is None:
        return internal_error_response()
    if status == 500:
        return internal_error_response(error.code)
    body: dict[str, object] = {"message": error.message}
    headers: Headers = [JSON, NO_STORE]
    match error:
        case errors.ValidationFailed(errors_first=True):
            body = {"errors": error.errors, **body}
        case errors.ValidationFailed():
            body["errors"] = error.errors
        case errors.Unauthorized():
            headers.append(("www-authenticate", 'Basic realm="ecomcharge"'))
        case errors.MethodNotAllowed():
            headers.append(("allow", ", ".join(error.allowed)))
        case errors.Unavailable():
            headers.append(("retry-after", str(error.retry_after_seconds)))
        case errors.TooManyRequests():
            headers += _rate_limit_headers(error)
        case BodyTooLarge() | errors.BodyTooSlow():
            headers.append(("connection", "close"))
    return Response(status, msgspec.json.encode(body), headers, error.code)


def internal_error_response(code: str = "internal_error") -> Response:
    """500 with a general sentence; ``code`` is for the log."""
    return Response(500, INTERNAL_ERROR, [JSON, NO_STORE], code)


def _status_of(error: EcomchargeError) -> int | None:
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)


def _rate_limit_headers(error: errors.TooManyRequests) -> Sequence[tuple[str, str]]:
    """draft-ietf-httpapi-ratelimit-headers-10: the policy, and what is left of it."""
    wait = max(1, math.ceil(error.retry_after_seconds))
    return (
        ("retry-after", str(wait)),
        ("ratelimit-policy", f'"{error.policy}";q={error.quota};w={error.window_seconds}'),
        ("ratelimit", f'"{error.policy}";r=0;t={wait}'),
    )


INTERNAL_ERROR: Final = b'{"message":"Internal server error"}'


class AccessLogEntry(NamedTuple):
    """One answered request. ``seconds`` run from the arrival of its headers to the hand-over of its answer.

    Every text is one of ours or made of characters that JSON need not escape.
    """

    at: float  # seconds since 1970
    request_id: str
    method: str
    route: str
    status: int
    code: str | None
    shop: int
    seconds: float
