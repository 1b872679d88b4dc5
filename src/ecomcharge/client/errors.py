"""The errors of the client. Each HTTP status that a caller may handle has a class of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec


class TransportError(ConnectionError):
    """No answer arrived, even after retries. The ``__cause__`` is the error of httpx.

    It is not known whether a create was done. Repeating it with ``idempotency_key`` is safe for 24 hours.
    """

    idempotency_key: str | None = None


class WebhookVerificationError(Exception):
    """A webhook is not authentic, too old, or not readable. Answer it with status 400."""


class ClockMoveError(Exception):
    """A move of the sandbox clock ended before it was complete."""


class Fault(msgspec.Struct, frozen=True):
    """One error of one field. ``pointer`` is a JSON pointer to the field; ``code`` does not change, ``detail`` is a text."""

    pointer: str
    code: str
    detail: str
    rule: str | None = None
    example: Any = None


class ApiError(Exception):
    """An answer other than success.

    ``message`` is the sentence of the server. ``errors`` has the messages of invalid fields as the server sent them, nested for
    fields within objects. ``status`` is the HTTP status. ``request_id`` identifies the request in the log of the server.
    ``idempotency_key`` is the key that the request was sent with. ``faults`` has the errors with codes and rules, if the client
    was created with ``problem_details``.
    """

    def __init__(
        self,
        message: str,
        errors: dict[str, Any],
        status: int,
        request_id: str | None,
        idempotency_key: str | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(message, errors, status, request_id, idempotency_key, faults)
        self.message = message
        self.errors = errors
        self.status = status
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self.faults = faults

    @property
    def field_errors(self) -> dict[str, list[str]]:
        """The messages of each invalid field by its path, such as ``plan.amount``. ``base`` has those of no field."""
        return dict(_by_path(self.errors))

    def __str__(self) -> str:
        return f"{self.status} {self.message}" + (f" (request {self.request_id})" if self.request_id else "")


def _by_path(errors: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, messages in errors.items():
        if isinstance(messages, dict):
            yield from _by_path(messages, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", [str(message) for message in messages] if isinstance(messages, list) else [str(messages)]


class AuthenticationError(ApiError):
    """401: the shop id or the secret key is wrong, or the shop is closed."""


class NotFoundError(ApiError):
    """404: this shop has no such object."""


class ConflictError(ApiError):
    """409: the state of the object does not allow the call, such as erasing a customer with active subscriptions."""


class StillRunningError(ConflictError):
    """409: an earlier attempt with this idempotency key has no answer yet. Repeat the call later with ``idempotency_key``."""


class ErasedError(ApiError):
    """410: the customer was erased."""


class ChangedError(ApiError):
    """412: the customer was changed since ``if_match`` was read."""


class ValidationError(ApiError):
    """422: ``errors`` has every error of every field. It is empty if the idempotency key is invalid."""


class RateLimitedError(ApiError):
    """429: too many requests."""


class UnavailableError(ApiError):
    """502, 503 or 504: the server, or a proxy before it, cannot answer now.

    After 504 it is not known whether something was written: repeat a create with ``idempotency_key``.
    """


ERROR_OF: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    404: NotFoundError,
    409: ConflictError,
    410: ErasedError,
    412: ChangedError,
    422: ValidationError,
    429: RateLimitedError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}
