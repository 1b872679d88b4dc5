"""The domain errors. A caller may see each of them.

Each has a stable ``code``, for logs and for searching the docs, and a sentence. The table in ``web/error_responses.py`` maps
them to HTTP statuses; this module knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecomcharge.base.faults import Fault, faults_of

FieldErrors = Mapping[str, Any]  # texts by field; of a nested object, again by field


class EcomchargeError(Exception):
    """Base of the errors that a handler answers, in contrast to programming errors."""

    code = "error"
    message = "Something went wrong"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message


class Unauthorized(EcomchargeError):
    """No credentials, wrong credentials, or a closed shop: all three give the same answer on purpose."""

    code = "unauthorized"
    message = "Unauthorized"


class ShopClosed(Unauthorized):
    """The shop was closed before the request or the billing worker committed. Nothing was written."""


class RecordNotFound(EcomchargeError):
    """This shop has no record with that id. The answer for a record of another shop is the same."""

    code = "record_not_found"
    message = "Record not found"


class CustomerErased(EcomchargeError):
    """The customer with this id was erased. Its id is not used again."""

    code = "customer_erased"
    message = "Customer was erased"


class CustomerHasSubscriptions(EcomchargeError):
    """A subscription of the customer can still charge."""

    code = "customer_has_subscriptions"
    message = "Customer has active subscriptions"


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
    """The body is not UTF-8 JSON, or it is not complete."""

    code = "malformed_body"
    message = "Body is not valid JSON"


class BodyTooSlow(EcomchargeError):
    code = "body_too_slow"
    message = "Body did not arrive in time"


class PreconditionFailed(EcomchargeError):
    """The version in the request is not the stored one. Nothing was changed."""

    code = "precondition_failed"
    message = "Customer was changed by someone else"


class BodyTooLarge(EcomchargeError):
    code = "body_too_large"
    message = "Body is too large"


class UnsupportedContentType(EcomchargeError):
    code = "unsupported_content_type"
    message = "Content-Type must be application/json"


class BadParameter(EcomchargeError):
    """A header or a query parameter of the API has an invalid value."""

    code = "bad_parameter"
    message = "A parameter is invalid"


class ValidationFailed(EcomchargeError):
    """All errors of the fields of a request.

    ``errors`` maps a field to its texts, in the order of the fields; ``message`` is the same in one line. ``faults`` are the
    same errors with codes and rules; unless given, they have the codes of their texts. ``errors_first`` puts ``errors`` before
    ``message`` in the answer, because pages of the documentation differ.
    """

    code = "invalid"

    def __init__(self, message: str, errors: FieldErrors, faults: Sequence[Fault] = (), *, errors_first: bool = False) -> None:
        super().__init__(message)
        self.errors = errors
        self.faults = faults or tuple(faults_of(errors))
        self.errors_first = errors_first


class NotAnObject(EcomchargeError):
    code = "not_an_object"
    message = "Body must be a JSON object"


class IdempotencyKeyReused(EcomchargeError):
    code = "idempotency_key_reused"
    message = "Idempotency key was already used with a different request"


class StillRunning(EcomchargeError):
    """An earlier request with the same idempotency key may still be running; ask again after ``retry_after_seconds``."""

    code = "still_running"
    message = "A request with this idempotency key is still running"

    def __init__(self, retry_after_seconds: int = 1) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class TooManyRequests(EcomchargeError):
    """The caller reached a rate limit.

    ``policy`` names the limit. It allows ``quota`` requests per ``window_seconds``; the next one is allowed after
    ``retry_after_seconds``.
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
    """The database is down, full or read-only. Nothing was written; a retry is safe.

    ``reason`` is a sentence for the operator, if the database engine knows one. Callers of the API do not get it.
    """

    code = "unavailable"
    message = "Service is temporarily unavailable"
    retry_after_seconds = 1

    def __init__(self, reason: str = "") -> None:
        super().__init__()
        self.reason = reason


class OutcomeUnknown(EcomchargeError):
    """The connection to the database broke during COMMIT, and the outcome did not become known in time.

    The transaction may or may not be committed. With an idempotency key a retry is safe.
    """

    code = "outcome_unknown"
    message = "The outcome of this request is not known; repeat it with the same Idempotency-Key"
    retry_after_seconds = 1


class IncompleteMove(EcomchargeError):
    """The sandbox clock was moved, but not to its target. To repeat the request would move it further."""

    code = "incomplete_move"
    message = "The clock was not moved to its target"


class ConfigurationError(EcomchargeError):
    """A setting, a file or a database that the operator must correct."""

    code = "unusable"
