"""A client of the API, blocking and asynchronous, that repeats what failed without ever doing it twice.

A create carries an ``Idempotency-Key``, the same at each of its attempts, so that a create whose answer was lost
is answered again instead of done again. What is sent, when it is sent again and what an answer means is decided
once, in ``_Calls`` and ``_Call``; the two clients at the end only send and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from ecomcharge.customers.model import Customer, CustomerFields

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)
R = TypeVar("R", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)
Outcome = httpx.Response | httpx.RequestError

PAGE_SIZE: Final = 200
LONGEST_WAIT_SECONDS: Final = 30.0
FIRST_WAIT_SECONDS: Final = 0.25

PASSING_STATUSES: Final = frozenset((409, 429, 502, 503, 504))
PASSING_ACCIDENTS: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TransportError(ConnectionError):
    """No answer arrived, even after retries. httpx's own error is the ``__cause__``.

    Whether a create was done is not known; repeating it with the same idempotency key is safe for 24 hours.
    """


class ApiError(Exception):
    """An answer other than success.

    ``message`` is the server's sentence and ``errors`` its texts by field, empty when no field is at fault;
    ``status`` is the HTTP status, and ``request_id`` finds the request in the server's log.
    """

    def __init__(self, message: str, errors: dict[str, list[str]], status: int, request_id: str | None) -> None:
        super().__init__(message, errors, status, request_id)
        self.message = message
        self.errors = errors
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.status} {self.message}" + (f" (request {self.request_id})" if self.request_id else "")


class AuthenticationError(ApiError):
    """401: the shop id or the secret key is wrong, or the shop is closed."""


class NotFoundError(ApiError):
    """404: this shop has no such customer."""


class StillRunningError(ApiError):
    """409: an earlier attempt with this idempotency key has no answer yet."""


class ValidationError(ApiError):
    """422: ``errors`` tells every fault of every field; it is empty when the idempotency key is at fault."""


class RateLimitedError(ApiError):
    """429: too many requests."""


class UnavailableError(ApiError):
    """502, 503 or 504: the server, or a proxy before it, cannot answer now."""


ERROR_OF: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    404: NotFoundError,
    409: StillRunningError,
    422: ValidationError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


class _ErrorBody(msgspec.Struct):
    message: str
    errors: dict[str, list[str]] = {}


class _Call(Generic[T]):
    """A request and the course of its attempts, without sending any.

    Iterate over ``waits``, the seconds to wait before each attempt, and put into ``outcome`` what came of it.
    """

    outcome: Outcome

    def __init__(self, request: httpx.Request, answer: type[T], retries: int) -> None:
        self.request = request
        self._answer = answer
        self._retries = retries

    def waits(self) -> Iterator[float]:
        yield 0.0
        for retry in range(self._retries):
            if not _may_pass(self.outcome):
                return
            yield _wait_seconds(self.outcome, retry)

    def result(self) -> T:
        """What the last attempt was answered. Raises ``ApiError`` or ``TransportError``."""
        if isinstance(self.outcome, httpx.RequestError):
            error = self.outcome
            what = f"{self.request.method} {self.request.url.path}: {type(error).__name__}"
            raise TransportError(f"{what}: {error}" if str(error) else what) from error
        if not self.outcome.is_success:
            raise _api_error(self.outcome)
        try:
            return msgspec.json.decode(self.outcome.content, type=self._answer)
        except UNREADABLE as error:
            raise _api_error(self.outcome, "The answer is not the documented JSON") from error


def _may_pass(outcome: Outcome) -> bool:
    """Whether another attempt may fare better, and can do no harm."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in PASSING_STATUSES
    return isinstance(outcome, PASSING_ACCIDENTS)


def _wait_seconds(outcome: Outcome, retry: int) -> float:
    """What the server asked for with ``Retry-After``; else twice as long each time, less up to a half by chance."""
    if isinstance(outcome, httpx.Response):
        asked = outcome.headers.get("retry-after", "")
        if asked.isascii() and asked.isdecimal():
            return min(float(asked), LONGEST_WAIT_SECONDS)
    wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(retry, 10), LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.5, 1)  # noqa: S311 - no secret, only to keep clients apart


def _api_error(response: httpx.Response, message: str | None = None) -> ApiError:
    """The exception for an answer, whatever its body: a proxy's page is no JSON."""
    body = _ErrorBody(message or response.reason_phrase or "Unknown error")
    if message is None:
        with contextlib.suppress(*UNREADABLE):
            body = msgspec.json.decode(response.content, type=_ErrorBody)
    kind = ERROR_OF.get(response.status_code, ApiError)
    return kind(body.message, body.errors, response.status_code, response.headers.get("x-request-id"))


class _Calls:
    """The calls of both clients, which make their methods of these."""

    def __init__(self, http: httpx.Client | httpx.AsyncClient, retries: int) -> None:
        self._request = http.build_request
        self._retries = retries

    def create_customer(
        self,
        *,
        first_name: str | None = None,
        last_name: str | None = None,
        address: str | None = None,
        country: str | None = None,
        city: str | None = None,
        zip: str | None = None,
        state: str | None = None,
        phone: str | None = None,
        email: str,
        ip: str,
        external_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> _Call[Customer]:
        """Create a customer. Raises ``ValidationError`` with every fault of every field.

        Give an ``idempotency_key`` (1 to 255 printable ASCII characters) to be able to repeat the call later;
        without it one is made, for this call and its retries.
        """
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key.strip()
        if not key:
            raise ValueError("idempotency_key must not be blank")
        customer = CustomerFields(
            first_name=first_name,
            last_name=last_name,
            address=address,
            country=country,
            city=city,
            zip=zip,
            state=state,
            phone=phone,
            email=email,
            ip=ip,
            external_id=external_id,
        )
        headers = {"content-type": "application/json", "idempotency-key": key}
        request = self._request("POST", "customers", headers=headers, content=msgspec.json.encode(customer))
        return _Call(request, Customer, self._retries)

    def get_customer(self, customer_id: str) -> _Call[Customer]:
        """The customer with that id. Raises ``NotFoundError``."""
        if not customer_id:
            raise ValueError("customer_id must not be empty")
        segment = quote(customer_id, safe="").replace(".", "%2E")  # lest ".." climb the path
        return _Call(self._request("GET", f"customers/{segment}"), Customer, self._retries)

    def list_customers(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        email: str | None = None,
        external_id: str | None = None,
    ) -> _Call[list[Customer]]:
        """Customers in order of creation: all, or with ``limit``, ``after`` or ``before`` (an id) one page.

        ``email`` and ``external_id`` keep those with exactly this value.
        """
        query = {"limit": limit, "after": after, "before": before, "email": email, "external_id": external_id}
        params = {name: value for name, value in query.items() if value is not None}
        return _Call(self._request("GET", "customers", params=params), list[Customer], self._retries)


def _next_after(page: list[Customer], page_size: int) -> str | None:
    """The cursor of the next page. A server that knows no pages sends all at once: then there is none."""
    return page[-1].id if len(page) == page_size else None


def _blocking(call: Callable[Concatenate[_Calls, P], _Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of ``Client`` that makes this call."""

    @functools.wraps(call)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._answer(call(self._calls, *args, **kwargs))

    return method


def _awaitable(
    call: Callable[Concatenate[_Calls, P], _Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of ``AsyncClient`` that makes this call."""

    @functools.wraps(call)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._answer(call(self._calls, *args, **kwargs))

    return method


class _Connection(Generic[H, R]):
    _open: Callable[..., Any]

    def __init__(
        self,
        base_url: str,
        shop_id: int,
        secret_key: str,
        *,
        timeout_seconds: float = 30.0,
        retries: int = 2,
        transport: R | None = None,
    ) -> None:
        auth = (str(shop_id), secret_key)
        self._http: H = self._open(base_url=base_url, auth=auth, timeout=timeout_seconds, transport=transport)
        self._calls = _Calls(self._http, retries)


class Client(_Connection[httpx.Client, httpx.BaseTransport]):
    """A shop's client, to be closed after use or used in a ``with``. Threads may share it.

    ``timeout_seconds`` is the patience for each connect, write and read of each attempt; after the first attempt
    come at most ``retries`` more, a moment or the server's ``Retry-After`` (at most 30 seconds) apart. ``transport``
    is httpx's, for certificates or proxies of your own. Each call raises ``ApiError`` or ``TransportError``.
    """

    _open = httpx.Client

    create_customer = _blocking(_Calls.create_customer)
    get_customer = _blocking(_Calls.get_customer)
    list_customers = _blocking(_Calls.list_customers)

    def customers(
        self, *, email: str | None = None, external_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> Iterator[Customer]:
        """Every customer in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        after = None
        while True:
            page = self.list_customers(limit=page_size, after=after, email=email, external_id=external_id)
            if page and page[-1].id == after:
                return  # a server that knows no pages has sent all of them again
            yield from page
            after = _next_after(page, page_size)
            if after is None:
                return

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self, call: _Call[T]) -> T:
        for seconds in call.waits():
            time.sleep(seconds)
            try:
                call.outcome = self._http.send(call.request)
            except httpx.RequestError as error:
                call.outcome = error
        return call.result()


class AsyncClient(_Connection[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """``Client`` for asyncio: the same calls, to be awaited; used in an ``async with``."""

    _open = httpx.AsyncClient

    create_customer = _awaitable(_Calls.create_customer)
    get_customer = _awaitable(_Calls.get_customer)
    list_customers = _awaitable(_Calls.list_customers)

    async def customers(
        self, *, email: str | None = None, external_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[Customer]:
        """Every customer in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        after = None
        while True:
            page = await self.list_customers(limit=page_size, after=after, email=email, external_id=external_id)
            if page and page[-1].id == after:
                return
            for customer in page:
                yield customer
            after = _next_after(page, page_size)
            if after is None:
                return

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _answer(self, call: _Call[T]) -> T:
        for seconds in call.waits():
            await asyncio.sleep(seconds)
            try:
                call.outcome = await self._http.send(call.request)
            except httpx.RequestError as error:
                call.outcome = error
        return call.result()
