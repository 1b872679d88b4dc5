"""The response to each domain error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from ecomcharge.base import errors
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.web.messages import JSON, NO_STORE, Headers, Response

# Every domain error has a row; a test checks it. An error without a row would be answered with 500.
STATUS_OF: Final[dict[type[EcomchargeError], int]] = {
    errors.BadParameter: 400,
    errors.MalformedBody: 400,
    errors.Unauthorized: 401,
    errors.RecordNotFound: 404,
    errors.RouteNotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.BodyTooSlow: 408,
    errors.StillRunning: 409,
    errors.CustomerHasSubscriptions: 409,
    errors.CustomerErased: 410,
    errors.PreconditionFailed: 412,
    errors.BodyTooLarge: 413,
    errors.UnsupportedContentType: 415,
    errors.ValidationFailed: 422,
    errors.NotAnObject: 422,
    errors.IdempotencyKeyReused: 422,
    errors.TooManyRequests: 429,
    errors.ConfigurationError: 500,  # not 503, which means that nothing was written: a charge may already be recorded
    errors.Unavailable: 503,
    errors.IncompleteMove: 504,
    errors.OutcomeUnknown: 504,
}

INTERNAL_ERROR: Final = b'{"message":"Internal server error"}'


def error_response(error: EcomchargeError) -> Response:
    """An object with ``message`` and, if fields are invalid, ``errors`` [S][W].

    The message of a 500 is general: the error's own message is for the operator and may contain settings.
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
        case errors.Unavailable() | errors.OutcomeUnknown() | errors.StillRunning():
            headers.append(("retry-after", str(error.retry_after_seconds)))
        case errors.TooManyRequests():
            headers += rate_limit_headers(error)
        case errors.BodyTooLarge() | errors.BodyTooSlow():
            headers.append(("connection", "close"))
    return Response(status, msgspec.json.encode(body), headers, error.code)


def internal_error_response(code: str = "internal_error") -> Response:
    """500 with a general message; ``code`` is for the access log."""
    return Response(500, INTERNAL_ERROR, [JSON, NO_STORE], code)


def _status_of(error: EcomchargeError) -> int | None:
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), None)


def rate_limit_headers(error: errors.TooManyRequests) -> Sequence[tuple[str, str]]:
    """As draft-ietf-httpapi-ratelimit-headers-10: the policy and its current state."""
    wait = max(1, math.ceil(error.retry_after_seconds))
    return (
        ("retry-after", str(wait)),
        ("ratelimit-policy", f'"{error.policy}";q={error.quota};w={error.window_seconds}'),
        ("ratelimit", f'"{error.policy}";r=0;t={wait}'),
    )
