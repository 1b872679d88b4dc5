"""A call: a request, the attempts that are safe, and the interpretation of the answer. No I/O."""

from __future__ import annotations

import contextlib
import enum
import itertools
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from ecomcharge.client.errors import ERROR_OF, ApiError, ConflictError, Fault, StillRunningError, TransportError

T = TypeVar("T")
Outcome = httpx.Response | httpx.RequestError
Read = Callable[[httpx.Response], T]

LONGEST_WAIT_SECONDS: Final = 30.0
FIRST_WAIT_SECONDS: Final = 0.25
STILL_RUNNING_RETRIES: Final = 7  # at least half a minute: a charge may run for that long after the first attempt timed out

RETRIED_STATUSES: Final = frozenset((429, 502, 503, 504))
RETRIED_ERRORS: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
UNREADABLE: Final = (msgspec.DecodeError, httpx.InvalidURL, UnicodeDecodeError, RecursionError)
PROBLEM: Final = "application/problem+json"
IDEMPOTENCY_KEY: Final = "idempotency-key"


Order = Literal["asc", "desc"]


class Created(TypedDict, total=False):
    """The times of creation that a list is limited to. A ``date`` is a whole day in UTC."""

    created_from: date | str | None
    created_to: date | str | None


class Repeat(enum.Enum):
    """Whether another attempt may follow one whose outcome is not known."""

    SAFE = enum.auto()  # the request reads, or a second one changes nothing
    KEYED = enum.auto()  # it has an idempotency key: the server executes it once
    ONCE = enum.auto()  # a second one has a second effect


class _ErrorBody(msgspec.Struct):
    message: str
    errors: dict[str, Any] = {}
    faults: Sequence[Fault] = ()


class _Problem(msgspec.Struct):
    """Problem details (RFC 9457)."""

    detail: str
    errors: list[Fault] = []


class Call(Generic[T]):
    """A request and its attempts.

    The client iterates over ``waits`` (seconds before each attempt), sends, and sets ``outcome``. ``read`` interprets a success;
    ``unchanged`` is the result for status 304.
    """

    outcome: Outcome

    def __init__(
        self, request: httpx.Request, read: Read[T], retries: int, repeat: Repeat = Repeat.SAFE, unchanged: T | None = None
    ) -> None:
        self.request = request
        self._read = read
        self.retries = retries
        self._repeat = repeat
        self._unchanged = unchanged

    def waits(self) -> Iterator[float]:
        yield 0.0
        for retry in itertools.count():
            if retry >= self._retries_allowed() or not self._is_retried():
                return
            yield wait_seconds(self.outcome, retry)

    def result(self) -> T:
        """The answer of the last attempt. Raises ``ApiError`` or ``TransportError``."""
        if isinstance(self.outcome, httpx.RequestError):
            raise transport_error(self.request, self.outcome) from self.outcome
        if self.outcome.status_code == 304 and self._unchanged is not None:
            return self._unchanged
        if not self.outcome.is_success:
            raise _api_error(self.request, self.outcome)
        try:
            return self._read(self.outcome)
        except UNREADABLE as error:
            raise _api_error(self.request, self.outcome, "The answer is not the documented one") from error

    def _retries_allowed(self) -> int:
        return max(self.retries, STILL_RUNNING_RETRIES) if self._is_still_running() and self.retries else self.retries

    def _is_retried(self) -> bool:
        """Whether another attempt can succeed and does no harm."""
        if isinstance(self.outcome, httpx.Response):
            if self._repeat is Repeat.ONCE:
                return self.outcome.status_code == 429
            return self.outcome.status_code in RETRIED_STATUSES or self._is_still_running()
        return isinstance(self.outcome, NOT_SENT if self._repeat is Repeat.ONCE else RETRIED_ERRORS)

    def _is_still_running(self) -> bool:
        answered = isinstance(self.outcome, httpx.Response) and self.outcome.status_code == 409
        return answered and self._repeat is Repeat.KEYED


def wait_seconds(outcome: Outcome, retry: int) -> float:
    """The ``Retry-After`` of the server, otherwise exponential backoff of which up to a half is random."""
    if isinstance(outcome, httpx.Response):
        asked = outcome.headers.get("retry-after", "")
        if asked.isascii() and asked.isdecimal():
            return min(float(asked), LONGEST_WAIT_SECONDS)
    wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(retry, 10), LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.5, 1)  # noqa: S311 - it distributes the retries of many clients, and is no secret


def transport_error(request: httpx.Request, error: httpx.RequestError) -> TransportError:
    summary = f"{request.method} {request.url.path}: {type(error).__name__}"
    raised = TransportError(f"{summary}: {error}" if str(error) else summary)
    raised.idempotency_key = request.headers.get(IDEMPOTENCY_KEY)
    return raised


def _api_error(request: httpx.Request, response: httpx.Response, message: str | None = None) -> ApiError:
    """The exception for an answer. The body may be of any kind, such as the HTML page of a proxy."""
    body = _ErrorBody(message or response.reason_phrase or "Unknown error")
    if message is None:
        with contextlib.suppress(*UNREADABLE):
            body = _error_body(response)
    kind = ERROR_OF.get(response.status_code, ApiError)
    key = request.headers.get(IDEMPOTENCY_KEY)
    if kind is ConflictError and key is not None:
        kind = StillRunningError
    return kind(body.message, body.errors, response.status_code, response.headers.get("x-request-id"), key, body.faults)


def _error_body(response: httpx.Response) -> _ErrorBody:
    if not response.headers.get("content-type", "").startswith(PROBLEM):
        return msgspec.json.decode(response.content, type=_ErrorBody)
    problem = msgspec.json.decode(response.content, type=_Problem)
    errors: dict[str, Any] = {}
    for fault in problem.errors:
        path = fault.pointer.strip("/").replace("/", ".").replace("~1", "/").replace("~0", "~")
        errors.setdefault(path or "base", []).append(fault.detail)
    return _ErrorBody(problem.detail, errors, problem.errors)


class Requests:
    """Builds the calls of all features."""

    def __init__(self, http: httpx.Client | httpx.AsyncClient, retries: int) -> None:
        self._http = http
        self.retries = retries

    def reading(self, path: str, read: Read[T], query: Mapping[str, object] | None = None, stale: int | None = None) -> Call[T]:
        """A read. With ``stale`` the answer may come from a replica that is at most so many seconds behind."""
        headers = {} if stale is None else {"prefer": f"stale={stale}"}
        return Call(self._http.build_request("GET", _with_query(path, query), headers=headers), read, self.retries)

    def counting(self, path: str, filters: Mapping[str, object], stale: int | None) -> Call[int]:
        return self.reading(path, total_of, {**filters, "limit": 1, "count": True}, stale)

    def conditional(self, path: str, read: Read[T], etag: str, unchanged: T) -> Call[T]:
        """A read that transfers the object only if its ``ETag`` has changed."""
        request = self._http.build_request("GET", path, headers={"if-none-match": etag})
        return Call(request, read, self.retries, unchanged=unchanged)

    def keyed(
        self, method: str, path: str, body: msgspec.Struct, read: Read[T], key: str | None, if_match: str | None = None
    ) -> Call[T]:
        """A request that the server executes once for each idempotency key. Without a key, it gets a random one."""
        headers = {"content-type": "application/json", IDEMPOTENCY_KEY: _key_or_new(key)}
        if if_match is not None:
            headers["if-match"] = if_match
        request = self._http.build_request(method, path, headers=headers, content=msgspec.json.encode(body))
        return Call(request, read, self.retries, Repeat.KEYED)

    def unkeyed(
        self,
        method: str,
        path: str,
        read: Read[T],
        repeat: Repeat,
        body: object | None = None,
        query: Mapping[str, object] | None = None,
        if_match: str | None = None,
    ) -> Call[T]:
        """A request that writes without an idempotency key; ``repeat`` says whether a second one is harmless."""
        headers = {} if if_match is None else {"if-match": if_match}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = msgspec.json.encode(body)
        request = self._http.build_request(method, _with_query(path, query), headers=headers, content=content)
        return Call(request, read, self.retries, repeat)


def json_of(kind: type[T]) -> Read[T]:
    """Reads the JSON body of an answer."""
    decoder = msgspec.json.Decoder(kind)
    return lambda response: decoder.decode(response.content)


def total_of(response: httpx.Response) -> int:
    """Reads the number of all records of a list."""
    return msgspec.json.decode(response.headers.get("x-total-count", ""), type=int)


def nothing(response: httpx.Response) -> None:
    """Reads an answer without a body."""


def segment(name: str, value: str) -> str:
    """A part of a path. Raises ``ValueError`` if it is empty."""
    if not value:
        raise ValueError(f"{name} must not be empty")
    return quote(value, safe="").replace(".", "%2E")  # so that the id ".." does not change the path


def query_of(parameters: Mapping[str, object]) -> dict[str, str]:
    """The query of a request, without the parameters that are ``None``."""
    return {name: _text(value) for name, value in parameters.items() if value is not None}


def _with_query(path: str, query: Mapping[str, object] | None) -> str:
    """A space is sent as %20: a server may read + as a plus, as it does in an e-mail address."""
    text = urlencode(query_of(query or {}), quote_via=quote)
    return f"{path}?{text}" if text else path


def moment(time: datetime | str) -> str:
    """A time as the API reads it. Raises ``ValueError`` for a ``datetime`` without a time zone."""
    if isinstance(time, str):
        return time
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone, such as datetime.now(UTC)")
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return moment(value) if isinstance(value, datetime) else str(value)


def _key_or_new(key: str | None) -> str:
    if key is None:
        return str(uuid.uuid4())
    if not key.strip():
        raise ValueError("idempotency_key must not be blank")
    return key.strip()
