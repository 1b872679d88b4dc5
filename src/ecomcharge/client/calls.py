"""The calls of both clients: requests, retries and the interpretation of answers."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Iterator
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from ecomcharge.client.errors import ERROR_OF, ApiError, TransportError
from ecomcharge.client.model import Customer, NewCustomer

T = TypeVar("T")
Outcome = httpx.Response | httpx.RequestError

LONGEST_WAIT_SECONDS: Final = 30.0
FIRST_WAIT_SECONDS: Final = 0.25

RETRIED_STATUSES: Final = frozenset((409, 429, 502, 503, 504))
RETRIED_ERRORS: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _ErrorBody(msgspec.Struct):
    message: str
    errors: dict[str, list[str]] = {}


class Call(Generic[T]):
    """A request and its attempts, without any I/O.

    The client iterates over ``waits`` (seconds before each attempt), sends, and sets ``outcome``.
    """

    outcome: Outcome

    def __init__(self, request: httpx.Request, answer: type[T], retries: int) -> None:
        self.request = request
        self._answer = answer
        self._retries = retries

    def waits(self) -> Iterator[float]:
        yield 0.0
        for retry in range(self._retries):
            if not _is_retried(self.outcome):
                return
            yield wait_seconds(self.outcome, retry)

    def result(self) -> T:
        """The answer of the last attempt. Raises ``ApiError`` or ``TransportError``."""
        if isinstance(self.outcome, httpx.RequestError):
            error = self.outcome
            summary = f"{self.request.method} {self.request.url.path}: {type(error).__name__}"
            raise TransportError(f"{summary}: {error}" if str(error) else summary) from error
        if not self.outcome.is_success:
            raise _api_error(self.outcome)
        try:
            return msgspec.json.decode(self.outcome.content, type=self._answer)
        except UNREADABLE as error:
            raise _api_error(self.outcome, "The answer is not the documented JSON") from error


def _is_retried(outcome: Outcome) -> bool:
    """Whether another attempt can succeed and does no harm."""
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in RETRIED_STATUSES
    return isinstance(outcome, RETRIED_ERRORS)


def wait_seconds(outcome: Outcome, retry: int) -> float:
    """The ``Retry-After`` of the server, otherwise exponential backoff of which up to a half is random."""
    if isinstance(outcome, httpx.Response):
        asked = outcome.headers.get("retry-after", "")
        if asked.isascii() and asked.isdecimal():
            return min(float(asked), LONGEST_WAIT_SECONDS)
    wait = min(FIRST_WAIT_SECONDS * 2.0 ** min(retry, 10), LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.5, 1)  # noqa: S311 - it distributes the retries of many clients, and is no secret


def _api_error(response: httpx.Response, message: str | None = None) -> ApiError:
    """The exception for an answer. The body may be of any kind, such as the HTML page of a proxy."""
    body = _ErrorBody(message or response.reason_phrase or "Unknown error")
    if message is None:
        with contextlib.suppress(*UNREADABLE):
            body = msgspec.json.decode(response.content, type=_ErrorBody)
    kind = ERROR_OF.get(response.status_code, ApiError)
    return kind(body.message, body.errors, response.status_code, response.headers.get("x-request-id"))


class Calls:
    """Creates the calls. The methods of both clients are derived from these."""

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
    ) -> Call[Customer]:
        """Create a customer. Raises ``ValidationError`` with every error of every field.

        With an ``idempotency_key`` (1 to 255 printable ASCII characters) the caller can repeat the call later. Without it
        the client generates one for this call and its retries.
        """
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key.strip()
        if not key:
            raise ValueError("idempotency_key must not be blank")
        customer = NewCustomer(
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
        return Call(request, Customer, self._retries)

    def get_customer(self, customer_id: str) -> Call[Customer]:
        """The customer with this id. Raises ``NotFoundError``."""
        if not customer_id:
            raise ValueError("customer_id must not be empty")
        segment = quote(customer_id, safe="").replace(".", "%2E")  # so that the id ".." does not change the path
        return Call(self._request("GET", f"customers/{segment}"), Customer, self._retries)

    def list_customers(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        before: str | None = None,
        email: str | None = None,
        external_id: str | None = None,
    ) -> Call[list[Customer]]:
        """Customers in order of creation: all of them, or one page with ``limit``, ``after`` or ``before`` (an id).

        ``email`` and ``external_id`` select customers with exactly this value.
        """
        query = {"limit": limit, "after": after, "before": before, "email": email, "external_id": external_id}
        params = {name: value for name, value in query.items() if value is not None}
        return Call(self._request("GET", "customers", params=params), list[Customer], self._retries)
