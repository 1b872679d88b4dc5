"""Errors of fields as problem details (RFC 9457), for clients that ask for them.

A client that accepts ``application/problem+json`` gets every 422 in this form [D]. Other clients get the documented form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from ecomcharge.base import errors
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.faults import REQUIRED, Fault, ValueRule
from ecomcharge.base.validation import NOT_AN_OBJECT
from ecomcharge.web.messages import NO_STORE, Response

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:ecomcharge:problem:"
STATUS: Final = 422
TITLES: Final[dict[type[EcomchargeError], str]] = {
    errors.ValidationFailed: "Some fields are invalid",
    errors.NotAnObject: "The body is not a JSON object",
    errors.IdempotencyKeyReused: "The idempotency key was used before",
}

_ZERO_WEIGHT: Final = re.compile(r";\s*q=0(?:\.0{0,3})?\s*(?:;|\Z)")
_WHOLE_BODY: Final = Fault((), NOT_AN_OBJECT, ValueRule("A JSON object with the fields of the request.", {}))


class FieldFault(TypedDict):
    """One error of one field."""

    pointer: Annotated[str, Meta(description="JSON pointer (RFC 6901) to the field in the body; empty: the whole body.")]
    code: Annotated[str, Meta(description="The kind of the error. Codes do not change.")]
    detail: Annotated[str, Meta(description="The text, as in `errors` of the other form.")]
    rule: NotRequired[Annotated[str, Meta(description="What the field accepts.")]]
    example: NotRequired[Annotated[Any, Meta(description="A value of the accepted form.")]]


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Meta(description=f"`{TYPE_PREFIX}` and the code of the error.")]
    title: str
    status: int
    detail: Annotated[str, Meta(description="The `message` of the other form.")]
    instance: Annotated[str, Meta(description="The id of the request, as in `X-Request-Id`.")]
    errors: list[FieldFault]


def wants_problem(accept: str | None) -> bool:
    """Whether an ``Accept`` header contains ``application/problem+json``."""
    return accept is not None and any(
        part.partition(";")[0].strip().lower() == MEDIA_TYPE and not _ZERO_WEIGHT.search(part.lower())
        for part in accept.split(",")
    )


def problem_response(error: EcomchargeError, request_id: str) -> Response:
    """The response to an error with status 422."""
    body = msgspec.json.encode(problem_of(error, request_id))
    return Response(STATUS, body, [("content-type", MEDIA_TYPE), NO_STORE], error.code)


def problem_of(error: EcomchargeError, request_id: str) -> Problem:
    return {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": next((TITLES[kind] for kind in type(error).__mro__ if kind in TITLES), "The request is invalid"),
        "status": STATUS,
        "detail": error.message,
        "instance": request_id,
        "errors": [_to_json(fault) for fault in _faults_of(error)],
    }


def _faults_of(error: EcomchargeError) -> Sequence[Fault]:
    match error:
        case errors.ValidationFailed():
            return list(_without_repetition(error.faults))
        case errors.NotAnObject():
            return [_WHOLE_BODY]
    return []


def _without_repetition(faults: Sequence[Fault]) -> Iterator[Fault]:
    """A field that is absent has one fault, although the documented form has two texts for ``ip``."""
    absent = {fault.path for fault in faults if fault.code == REQUIRED}
    return (fault for fault in faults if fault.path not in absent or fault.code == REQUIRED)


def _to_json(fault: Fault) -> FieldFault:
    described: FieldFault = {"pointer": fault.pointer, "code": fault.code, "detail": fault.text}
    if fault.rule is not None:
        described["rule"] = fault.rule.description
        if fault.rule.example is not None:
            described["example"] = fault.rule.example
    return described
