"""The family of errors that a caller may see.

Each has a stable ``code`` (for logs and for people who search the docs) and a sentence. Which HTTP status
a code becomes is written in one place, ``web/wire.py``; nothing here knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FieldErrors = Mapping[str, Any]  # texts by field; of a nested object, again by field


class EcomchargeError(Exception):
    """Base of every error that is an answer rather than an accident."""

    code = "error"
    message = "Something went wrong"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message


class Unauthorized(EcomchargeError):
    """No credentials, wrong credentials, or a closed shop: the three look alike on purpose."""

    code = "unauthorized"
    message = "Unauthorized"


class ShopClosed(Unauthorized):
    """The shop was closed while the request, or the billing worker, was about to begin something. Nothing was written."""


class RecordNotFound(EcomchargeError):
    """Nothing of this shop's has that id. Another shop's record answers the same."""

    code = "record_not_found"
    message = "Record not found"


class RouteNotFound(EcomchargeError):
    code = "route_not_found"
    message = "Route not found"


class MethodNotAllowed(EcomchargeError):
    """The path exists, the method does not. ``allowed`` lists the methods that do."""

    code = "method_not_allowed"
    message = "Method not allowed"

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__()
        self.allowed = tuple(allowed)


class MalformedBody(EcomchargeError):
    """The body is not UTF-8 JSON, or it stopped halfway."""

    code = "malformed_body"
    message = "Body is not valid JSON"


class BodyTooSlow(EcomchargeError):
    code = "body_too_slow"
    message = "Body did not arrive in time"


class BodyTooLarge(EcomchargeError):
    code = "body_too_large"
    message = "Body is too large"


class UnsupportedContentType(EcomchargeError):
    code = "unsupported_content_type"
    message = "Content-Type must be application/json"


class BadParameter(EcomchargeError):
    """A header or a query parameter of ours that cannot be understood."""

    code = "bad_parameter"
    message = "A parameter is invalid"


class ValidationFailed(EcomchargeError):
    """Field faults, all of them at once.

    ``errors`` maps a field to its texts, in the order of the fields; ``message`` says the same in one line.
    ``errors_first``: in which order the two stand in the answer, which differs between pages of the documentation.
    """

    code = "invalid"

    def __init__(self, message: str, errors: FieldErrors, *, errors_first: bool = False) -> None:
        super().__init__(message)
        self.errors = errors
        self.errors_first = errors_first


class NotAnObject(EcomchargeError):
    code = "not_an_object"
    message = "Body must be a JSON object"


class IdempotencyKeyReused(EcomchargeError):
    code = "idempotency_key_reused"
    message = "Idempotency key was already used with a different request"


class StillRunning(EcomchargeError):
    code = "still_running"
    message = "A request with this idempotency key is still running"


class TooManyRequests(EcomchargeError):
    """A limit is reached.

    ``policy`` names the limit, ``quota`` requests are allowed per ``window_seconds``, and after
    ``retry_after_seconds`` there will be room again.
    """

    code = "too_many_requests"
    message = "Too many requests"

    def __init__(self, policy: str, quota: int, window_seconds: int, retry_after_seconds: int) -> None:
        super().__init__()
        self.policy = policy
        self.quota = quota
        self.window_seconds = window_seconds
        self.retry_after_seconds = retry_after_seconds


class Unavailable(EcomchargeError):
    """The store is down, full or read-only. Nothing was written; try again."""

    code = "unavailable"
    message = "Service is temporarily unavailable"
    retry_after_seconds = 1


class OutcomeUnknown(EcomchargeError):
    """The connection to the database broke during COMMIT, and its outcome could not be learnt in time.

    The one honest answer: it may or may not have been written. With an idempotency key a retry is safe.
    """

    code = "outcome_unknown"
    message = "The outcome of this request is not known; repeat it with the same Idempotency-Key"


class ConfigurationError(EcomchargeError):
    """For the operator: a setting, a file or a database that cannot be used as it is."""

    code = "unusable"
