"""The errors of the client. Each HTTP status that a caller may handle has a class of its own."""

from __future__ import annotations

from typing import Final


class TransportError(ConnectionError):
    """No answer arrived, even after retries. The ``__cause__`` is the error of httpx.

    It is not known whether a create was done. Repeating it with the same idempotency key is safe for 24 hours.
    """


class ApiError(Exception):
    """An answer other than success.

    ``message`` is the sentence of the server, and ``errors`` has the messages of invalid fields. ``status`` is the HTTP
    status. ``request_id`` identifies the request in the log of the server.
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
    """422: ``errors`` has every error of every field. It is empty if the idempotency key is invalid."""


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
