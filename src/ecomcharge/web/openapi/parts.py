"""What the descriptions of all rooms are made of: texts, numbers, headers, answers, errors, pages of lists.

The patterns keep to what ECMA 262 and Python read alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from ecomcharge.base import errors, ids
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.validation import BASE, INVALID, MAXIMUM_LENGTH, Field, human_name, message_of
from ecomcharge.customers import model as customers
from ecomcharge.plans import model as plans
from ecomcharge.subscriptions import requests
from ecomcharge.web import idempotency
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.messages import INTERNAL_ERROR, Response, error_response

Json = dict[str, Any]

# Blank space around a text is trimmed, control characters within it are refused.
_SPACE: Final = r"\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
AROUND: Final = rf"[\t-\r \x85\xa0{_SPACE}]*"
_EDGE: Final = rf"[^\x00-\x20\x7f-\xa0{_SPACE}]"
_INNER: Final = r"[^\x00-\x1f\x7f-\x9f]"
BLANK: Final = {"type": "string", "pattern": f"^{AROUND}$", "title": "blank", "description": "The same as absent."}
NULL: Final = {"type": "null", "description": "The same as absent."}
EMPTY: Final = {"const": "", "title": "empty", "description": "The same as absent."}

_IDEMPOTENCY_KEY: Final = (
    rf'^(?:"[!-~](?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!-~])?"'
    rf"|[!#-~](?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!-~])?"
    rf'|"(?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!#-~])?)$'
)


def pattern_of_id(id: re.Pattern[str]) -> str:
    return f"^{id.pattern.removesuffix(chr(92) + 'Z')}$"


CUSTOMER_ID: Final = pattern_of_id(ids.CUSTOMER_ID)
PLAN_ID: Final = pattern_of_id(ids.PLAN_ID)
SUBSCRIPTION_ID: Final = pattern_of_id(ids.SUBSCRIPTION_ID)
EVENT_ID: Final = pattern_of_id(ids.EVENT_ID)
CUSTOMER_ID_EXAMPLE: Final = "cst_7aee5afb954c7ef7"
PLAN_ID_EXAMPLE: Final = "pln_7aee5afb954c7ef8"
SUBSCRIPTION_ID_EXAMPLE: Final = "sbs_7aee5afb954c7ef9"
EVENT_ID_EXAMPLE: Final = "evt_7aee5afb954c7efa"
TOKEN: Final = "^[0-9a-f]{64}$"  # noqa: S105 - the form of one
TOKEN_EXAMPLE: Final = "c7" * 32
UUID: Final = pattern_of_id(ids.PAYMENT_ID)
UUID_EXAMPLE: Final = "019b3d6e-7c00-7abc-8def-0123456789ab"

# Errors

_IP_MISSING: Final = {customers.IP.name: list(customers.IP.blank)}
_TITLE_MISSING: Final = {plans.TITLE.name: list(plans.TITLE.blank)}
_INLINE_PLAN: Final = {BASE: [f"{human_name(plans.CURRENCY.name)} {INVALID}"]}
_NO_REASON: Final = {requests.CANCEL_REASON.name: list(requests.CANCEL_REASON.blank)}


def _invalid(faults: Mapping[str, Any], *, errors_first: bool = True) -> errors.ValidationFailed:
    return errors.ValidationFailed(message_of(faults), faults, errors_first=errors_first)


# One of each, from which the document learns its status, its body and its headers.
ERRORS: Final[tuple[EcomchargeError, ...]] = (
    errors.BadParameter(f"Limit must be a whole number between 1 and {MAXIMUM_LIMIT}"),
    errors.MalformedBody(),
    errors.Unauthorized(),
    errors.RecordNotFound(),
    errors.RouteNotFound(),
    errors.MethodNotAllowed(["GET", "HEAD", "POST"]),
    errors.BodyTooSlow(),
    errors.StillRunning(),
    errors.BodyTooLarge(),
    errors.UnsupportedContentType(),
    _invalid(_IP_MISSING, errors_first=False),
    errors.NotAnObject(),
    errors.IdempotencyKeyReused(),
    errors.TooManyRequests("shop", 100, 1, 1),
    errors.OutcomeUnknown(),
    errors.ConfigurationError(),
    errors.Unavailable(),
)
INTERNAL: Final = "internal_error"
INVALID_PLAN: Final = "invalid_plan"
INLINE_PLAN: Final = "invalid_inline_plan"
UNKNOWN_PLAN: Final = "unknown_plan"
UNKNOWN_CUSTOMER: Final = "unknown_customer"
UNKNOWN_TOKEN: Final = "unknown_card_token"  # noqa: S105 - the name of an error
MISPLACED_TEST: Final = "misplaced_test"
MISPLACED_TEST_OF_PLAN: Final = "misplaced_test_of_plan"
NO_REASON: Final = "cancel_reason_missing"
OVER: Final = "subscription_is_over"

# Answers by the name of their example: the error's code, or a name of its own for one more example of a code.
ANSWERS: Final[Mapping[str, Response]] = {
    **{error.code: error_response(error) for error in ERRORS},
    INTERNAL: Response(500, INTERNAL_ERROR, [], INTERNAL),
    INVALID_PLAN: error_response(_invalid(_TITLE_MISSING)),
    INLINE_PLAN: error_response(_invalid(_INLINE_PLAN)),
    UNKNOWN_PLAN: error_response(requests.refused("plan", requests.NO_SUCH.format(noun="plan"))),
    UNKNOWN_CUSTOMER: error_response(requests.refused("customer", requests.NO_SUCH.format(noun="customer"))),
    UNKNOWN_TOKEN: error_response(requests.refused("card", requests.NO_SUCH_TOKEN)),
    MISPLACED_TEST: error_response(plans.misplaced_test("plan.test")),
    MISPLACED_TEST_OF_PLAN: error_response(plans.misplaced_test("test")),
    NO_REASON: error_response(_invalid(_NO_REASON)),
    OVER: error_response(errors.ValidationFailed(requests.OVER_ALREADY, {BASE: [requests.OVER_ALREADY]}, errors_first=True)),
}

_ANYWHERE: Final = (errors.MethodNotAllowed.code, INTERNAL, errors.ConfigurationError.code)
FOR_BROWSERS: Final = (errors.BadParameter.code, errors.Unavailable.code, *_ANYWHERE)
FOR_BUYERS: Final = (errors.TooManyRequests.code, *FOR_BROWSERS)
FOR_SHOPS: Final = (errors.Unauthorized.code, errors.TooManyRequests.code, errors.Unavailable.code, *_ANYWHERE)
OF_A_BODY: Final = (errors.MalformedBody.code, errors.BodyTooSlow.code, errors.BodyTooLarge.code)
OF_JSON: Final = (*OF_A_BODY, errors.UnsupportedContentType.code, errors.NotAnObject.code)
OF_A_WRITE: Final = (errors.OutcomeUnknown.code,)
OF_CREATE: Final = (
    *OF_JSON,
    *OF_A_WRITE,
    errors.BadParameter.code,
    errors.StillRunning.code,
    errors.IdempotencyKeyReused.code,
)
OF_AN_ID: Final = (errors.RecordNotFound.code, errors.RouteNotFound.code)


def failures(*names: str) -> Json:
    """The answers to these errors, by status: those of one status share a description."""
    statuses: dict[int, list[str]] = {}
    for name in names:
        statuses.setdefault(ANSWERS[name].status, []).append(name)
    return {str(status): _failure(status, statuses[status]) for status in sorted(statuses)}


def _failure(status: int, names: Collection[str]) -> Json:
    sent = [{name for name, _ in ANSWERS[name].headers} for name in names]
    always = set.intersection(*sent) & _HEADER_OF.keys()
    content = {
        "application/json": {
            "schema": ref("schemas", "Error"),
            "examples": {name: ref("examples", name) for name in names},
        }
    }
    codes = dict.fromkeys(str(ANSWERS[name].code) for name in names)
    return answer(
        f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}.",
        content,
        headers=[name for name in HEADERS if name.lower() in always],
    )


def error() -> Json:
    return {
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": {"type": "string", "minLength": 1, "description": "A sentence that says all that is wrong."},
            "errors": ref("schemas", "Errors"),
        },
    }


def nested_errors() -> Json:
    return {
        "type": "object",
        "description": (
            "The fields at fault, each with what is wrong with it; of an object within the body, again by field. "
            f"Texts under `{BASE}` are about the whole of an object."
        ),
        "minProperties": 1,
        "additionalProperties": {
            "anyOf": [{"type": "array", "minItems": 1, "items": {"type": "string"}}, ref("schemas", "Errors")]
        },
    }


# Headers of answers, by the name on the wire. ``required`` ones come with every answer that names them.
HEADERS: Final[Mapping[str, Json]] = {
    "X-Request-Id": {
        "description": "The request's own X-Request-Id if it was usable, else one of ours.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "Location": {
        "description": "Of a new object its path, of a redirect where to go.",
        "required": True,
        "schema": {"type": "string", "pattern": "^(?:/|https?://)"},
    },
    "Idempotent-Replayed": {
        "description": "Sent when this is the answer of an earlier attempt with the same key.",
        "schema": {"const": "true"},
    },
    "X-Next-Attempt-At": {
        "description": "When a failed charge is tried again. Sent in the states `failed_attempt` and `rescuing`.",
        "schema": {"type": "string", "format": "date-time"},
        "example": "2026-12-24T03:00:00.000Z",
    },
    "X-Ignored-Keys": {
        "description": (
            "Known keys that stand in the wrong place of the body and are ignored, in dotted form. "
            "Sent where there are any, with errors as well."
        ),
        "schema": {"type": "string", "maxLength": 1000},
        "example": "test, billing_cycles, plan.interval",
    },
    "Link": {
        "description": (
            "RFC 8288, relative to this request: the `next` and the `prev` page of a list, where there is one; "
            "of a customer, its subscriptions."
        ),
        "schema": {"type": "string"},
        "example": f'</customers?limit=20&after={CUSTOMER_ID_EXAMPLE}>; rel="next"',
    },
    "WWW-Authenticate": {"description": "RFC 7617.", "required": True, "schema": {"const": 'Basic realm="ecomcharge"'}},
    "Allow": {"description": "The methods that this path knows.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which there is hope again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Policy": {
        "description": "The limit that was reached: its name, `q` requests per `w` seconds.",
        "required": True,
        "schema": {"type": "string"},
        "example": '"shop";q=100;w=1',
    },
    "RateLimit": {
        "description": "What is left of the limit: `r` requests, and room again in `t` seconds.",
        "required": True,
        "schema": {"type": "string"},
        "example": '"shop";r=0;t=1',
    },
    "ETag": {"description": "Names this version of the file.", "required": True, "schema": {"type": "string"}},
}
_HEADER_OF: Final = {name.lower(): name for name in HEADERS}


# Operations and answers


def open_get(tag: str, operation_id: str, summary: str, answered: Json, *codes: str) -> Json:
    """A GET that needs no credentials."""
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [],
        "parameters": [request_id_header()],
        "responses": {"200": answered, **failures(*codes, *_ANYWHERE)},
    }


def open_file(tag: str, operation_id: str, summary: str, kinds: Mapping[str, str]) -> Json:
    """A GET of one of these files, by name and media type."""
    found = answer("The file.", {kind: {} for kind in sorted(set(kinds.values()))}, headers=("ETag",))
    operation = open_get(tag, operation_id, summary, found, errors.RouteNotFound.code)
    operation["parameters"] += [
        path_parameter("file", {"enum": list(kinds)}),
        header("If-None-Match", "The ETag that the client already has.", {"type": "string"}),
    ]
    operation["responses"]["304"] = answer("The client's copy is still good.", {}, headers=("ETag",))
    return operation


def answer(description: str, content: Json, *, headers: Sequence[str] = (), links: Json | None = None) -> Json:
    described: Json = {
        "description": description,
        "headers": {name: ref("headers", name) for name in ("X-Request-Id", *headers)},
    }
    if content:
        described["content"] = content
    if links:
        described["links"] = links
    return described


def json_of(name: str, example: object) -> Json:
    return {"application/json": {"schema": ref("schemas", name), "example": example}}


def list_of(name: str, example: object) -> Json:
    return {"application/json": {"schema": {"type": "array", "items": ref("schemas", name)}, "example": [example]}}


def json_body(name: str, examples: Json) -> Json:
    return {
        "required": True,
        "description": "`application/*+json`, `text/json` and no Content-Type at all are taken as well.",
        "content": {"application/json": {"schema": ref("schemas", name), "examples": examples}},
    }


def creation_headers() -> list[Json]:
    return [
        _idempotency_header("Idempotency-Key", "Names this attempt, quoted or not. Wins over RequestID."),
        _idempotency_header("RequestID", "The platform's own name for the same."),
        request_id_header(),
    ]


IDEMPOTENT: Final = "With an idempotency key, an attempt that is repeated within 24 hours gets the answer of the first."


def paging(noun: str, id_pattern: str) -> list[Json]:
    cursor = {"type": "string", "pattern": f"^(?:{id_pattern[1:-1]})?$"}
    return [
        query("limit", f"Length of a page by cursor, {DEFAULT_LIMIT} unless given.", count(MAXIMUM_LIMIT)),
        query("after", f"The page that follows this {noun}. Empty: the first page.", cursor),
        query("before", f"The page that precedes this {noun}. Empty: the last page.", cursor),
        query("page", "Number of a page, the first is 1.", count(DEEPEST_OFFSET)),
        query("per_page", f"Length of a page by number, {DEFAULT_LIMIT} unless given.", count(MAXIMUM_LIMIT)),
        request_id_header(),
    ]


def paging_told(noun: str, plural: str) -> str:
    return (
        "In order of creation. Without `limit`, `after`, `before`, `page` and `per_page` it is all of them, however "
        f"many. A page is told either by a cursor (`after` or `before` a {noun}, at most `limit`) or by number "
        "(`page` of `per_page`), never by both; by number, "
        f"at most {DEEPEST_OFFSET} {plural} can be skipped."
    )


def _idempotency_header(name: str, description: str) -> Json:
    rule = f" 1 to {idempotency.KEY_MAXIMUM} printable ASCII characters."
    return header(name, description + rule, {"type": "string", "pattern": _IDEMPOTENCY_KEY})


def request_id_header() -> Json:
    return header("X-Request-Id", "Comes back with the answer and stands in the log.", {"type": "string"})


def header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def path_parameter(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def count(maximum: int) -> Json:
    """Without ``default``: pages that try the API fill it in, and a page's length must not come with another's number."""
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def examples() -> Json:
    """One of every error."""
    return {name: {"summary": name, "value": json.loads(answered.body)} for name, answered in ANSWERS.items()}


# What a field takes


def text(maximum: int) -> Json:
    inside = f"{_EDGE}(?:{_INNER}{{0,{maximum - 2}}}{_EDGE})?"
    return {
        "type": "string",
        "description": f"At most {maximum} characters, none of them a control character; blank is the same as absent.",
        "pattern": f"^{AROUND}(?:{inside})?{AROUND}$",
    }


def told(field: Field) -> Json:
    """A field's own words."""
    described: Json = {"description": field.description}
    if field.example is not None:
        described["examples"] = [field.example]
    return described


def optional_text(field: Field) -> Json:
    if field.maximum == MAXIMUM_LENGTH:
        return told(field) | {"anyOf": [ref("schemas", "Text"), {"type": "integer"}, NULL]}
    most = 10**field.maximum
    number = {"type": "integer", "exclusiveMinimum": -(most // 10), "exclusiveMaximum": most}
    return told(field) | {"anyOf": [text(field.maximum), number, NULL]}


def required_text(field: Field) -> Json:
    inside = f"{_EDGE}(?:{_INNER}{{0,{field.maximum - 2}}}{_EDGE})?"
    return told(field) | {"anyOf": [{"type": "string", "pattern": f"^{AROUND}{inside}{AROUND}$"}, {"type": "integer"}]}


def web_address(field: Field) -> Json:
    inside = rf"[^\x00-\x20\x7f-\xa0{_SPACE}/?#][^\x00-\x20\x7f-\xa0{_SPACE}]*"
    address = {
        "type": "string",
        "description": f"An absolute address with `http` or `https` and a host, of {field.maximum} characters at most.",
        "pattern": f"^{AROUND}[Hh][Tt][Tt][Pp][Ss]?://{inside}{AROUND}$",
        "maxLength": field.maximum,
    }
    return told(field) | {"anyOf": [address, BLANK, NULL]}


def one_of(field: Field, choices: Iterable[str]) -> Json:
    """One of these words, with blank space around it or without."""
    words = list(choices)
    spaced = {"title": "with blank space around it", "type": "string", "pattern": f"^{AROUND}(?:{'|'.join(words)}){AROUND}$"}
    absent = [] if field.required else [BLANK, NULL]
    return told(field) | {"anyOf": [{"title": "word", "enum": words}, spaced, *absent]}


def whole_number(description: str, *, above: int, most: int, example: int | None = None, required: bool = True) -> Json:
    """As JSON number, or as decimal text [W]."""
    described: Json = {"description": description}
    if example is not None:
        described["examples"] = [example]
    absent = [] if required else [BLANK, NULL]
    return described | {"anyOf": [{"type": "integer", "minimum": above + 1, "maximum": most}, decimal(above, most), *absent]}


def decimal(above: int, most: int) -> Json:
    zero = "|-?0" if above < 0 else ""
    return {
        "title": "as text",
        "type": "string",
        "pattern": f"^{AROUND}0{{0,{20 - len(str(most))}}}(?:{decimal_up_to(most)}{zero}){AROUND}$",
    }


def decimal_up_to(most: int) -> str:
    """Numbers from 1 on, without zeros before them: ``12`` becomes ``12|[1-9]|1[0-1]``."""
    digits = str(most)
    forms = [digits]
    if len(digits) > 1:
        forms.append(f"[1-9][0-9]{{0,{len(digits) - 2}}}")
    for place, digit in enumerate(digits):
        least = 0 if place else 1
        if int(digit) > least:
            forms.append(f"{digits[:place]}[{least}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}")
    return "|".join(forms)


def truth(description: str, *, default: bool) -> Json:
    as_text = {
        "title": "as text",
        "type": "string",
        "pattern": f"^{AROUND}(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]){AROUND}$",
    }
    return {
        "description": f"{description} `{str(default).lower()}` unless given.",
        "anyOf": [{"type": "boolean"}, as_text, BLANK, NULL],
    }


# What an object shows


def shown_text(description: str, *, nullable: bool = False, **rules: Any) -> Json:
    return {"description": description, "type": ["string", "null"] if nullable else "string", **rules}


def moment(description: str, *, nullable: bool = False) -> Json:
    return {
        "description": f"{description} UTC.",
        "type": ["string", "null"] if nullable else "string",
        "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
    }


def shown_number(description: str, *, nullable: bool = False, minimum: int = 0) -> Json:
    return {"description": description, "type": ["integer", "null"] if nullable else "integer", "minimum": minimum}


def shown_object(description: str, properties: Json, *, optional: Collection[str] = (), example: Json | None = None) -> Json:
    described: Json = {
        "type": "object",
        "description": description,
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }
    if example is not None:
        described["examples"] = [example]
    return described
