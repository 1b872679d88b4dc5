"""``GET /openapi.json``: the API's description, made of the definitions that the code itself checks with.

Fields, limits, patterns and errors are read from where they rule; only the prose is written here. The patterns
keep to what ECMA 262 and Python read alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any, Final

from ecomcharge import errors, fields, idempotency, ids
from ecomcharge.customers import model
from ecomcharge.errors import EcomchargeError
from ecomcharge.fields import Field
from ecomcharge.web.html import ASSETS
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.server import Route
from ecomcharge.web.wire import INTERNAL_ERROR, Request, Response, error_response, json_response

Json = dict[str, Any]

# Blank space around a text is trimmed, control characters within it are refused.
_SPACE: Final = r"\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_AROUND: Final = rf"[\t-\r \x85\xa0{_SPACE}]*"
_EDGE: Final = rf"[^\x00-\x20\x7f-\xa0{_SPACE}]"
_INNER: Final = r"[^\x00-\x1f\x7f-\x9f]"
_BLANK: Final = {"type": "string", "pattern": f"^{_AROUND}$", "title": "blank", "description": "The same as absent."}
_NULL: Final = {"type": "null", "description": "The same as absent."}

_IDEMPOTENCY_KEY: Final = (
    rf'^(?:"[!-~](?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!-~])?"'
    rf"|[!#-~](?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!-~])?"
    rf'|"(?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}[!#-~])?)$'
)
_CUSTOMER_ID: Final = f"^{ids.CUSTOMER_ID.pattern.removesuffix(chr(92) + 'Z')}$"
_ID_EXAMPLE: Final = "cst_7aee5afb954c7ef7"

_IP_MISSING: Final = {model.IP.name: list(model.IP.blank)}

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
    errors.Invalid(fields.message_of(_IP_MISSING), _IP_MISSING),
    errors.NotAnObject(),
    errors.IdempotencyKeyReused(),
    errors.TooManyRequests("shop", 100, 1, 1),
    errors.OutcomeUnknown(),
    errors.Unavailable(),
)
_INTERNAL: Final = "internal_error"
_ANSWERS: Final[Mapping[str, Response]] = {
    **{error.code: error_response(error) for error in ERRORS},
    _INTERNAL: Response(500, INTERNAL_ERROR, []),
}

_ANYWHERE: Final = (errors.MethodNotAllowed.code, _INTERNAL)
_FOR_SHOPS: Final = (errors.Unauthorized.code, errors.TooManyRequests.code, errors.Unavailable.code, *_ANYWHERE)
_OF_CREATE: Final = (
    errors.BadParameter.code,
    errors.MalformedBody.code,
    errors.BodyTooSlow.code,
    errors.StillRunning.code,
    errors.BodyTooLarge.code,
    errors.UnsupportedContentType.code,
    errors.Invalid.code,
    errors.NotAnObject.code,
    errors.IdempotencyKeyReused.code,
    errors.OutcomeUnknown.code,
)

# Response headers, by the name on the wire. ``required`` ones come with every answer that names them.
_HEADERS: Final[Mapping[str, Json]] = {
    "X-Request-Id": {
        "description": "The request's own X-Request-Id if it was usable, else one of ours.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "Location": {
        "description": "The path of the new customer.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/customers/" + _CUSTOMER_ID[1:]},
    },
    "Idempotent-Replayed": {
        "description": "Sent when this is the answer of an earlier attempt with the same key.",
        "schema": {"const": "true"},
    },
    "Link": {
        "description": "RFC 8288: the `next` and the `prev` page, where there is one, relative to this request.",
        "schema": {"type": "string"},
        "example": f'</customers?limit=20&after={_ID_EXAMPLE}>; rel="next"',
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
_HEADER_OF: Final = {name.lower(): name for name in _HEADERS}


class OpenApiRoutes:
    def __init__(self) -> None:
        self._document = json.dumps(document(), ensure_ascii=False).encode()

    def routes(self) -> list[Route]:
        return [Route("GET", "/openapi.json", self.read, needs_shop=False)]

    async def read(self, request: Request) -> Response:
        return json_response(200, self._document)


def document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "eComCharge Customers API",
            "version": metadata.version("ecomcharge"),
            "summary": "Customers of a shop: create, read, list.",
            "description": (
                "Log in with HTTP Basic: the shop's id is the user, its secret key the password. A shop sees its own "
                "customers only.\n\n"
                "Bodies are UTF-8 JSON. Unknown keys, headers and query parameters are ignored. Every answer of 400 "
                "and above is an object with a `message` and, where fields are at fault, `errors`.\n\n"
                "Where `GET` is described, `HEAD` works too."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"basic": []}],
        "tags": [
            {"name": "customers", "description": "The people and companies that buy from a shop."},
            {"name": "operations", "description": "What machines ask about the server itself."},
            {"name": "documentation", "description": "What you are reading."},
        ],
        "paths": {
            "/customers": {"post": _create(), "get": _list()},
            "/customers/{customer_id}": {"get": _read()},
            "/healthz": {"get": _healthy()},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _openapi()},
            "/docs": {"get": _docs()},
            "/docs/{file}": {"get": _docs_file()},
        },
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "User: the shop's id. Password: its secret key."}
            },
            "schemas": {
                "NewCustomer": _new_customer(),
                "Customer": _customer(),
                "CustomerId": {"type": "string", "pattern": _CUSTOMER_ID, "examples": [_ID_EXAMPLE]},
                "Text": _text(fields.MAXIMUM_LENGTH),
                "Error": _error(),
            },
            "examples": {code: {"summary": code, "value": json.loads(answer.body)} for code, answer in _ANSWERS.items()},
            "headers": dict(_HEADERS),
        },
    }


def _create() -> Json:
    return {
        "operationId": "createCustomer",
        "tags": ["customers"],
        "summary": "Create a customer",
        "description": "With an idempotency key, an attempt that is repeated within 24 hours gets the answer of the first.",
        "parameters": [
            _idempotency_header("Idempotency-Key", "Names this attempt, quoted or not. Wins over RequestID."),
            _idempotency_header("RequestID", "The platform's own name for the same."),
            _request_id_header(),
        ],
        "requestBody": {
            "required": True,
            "description": "`application/*+json`, `text/json` and no Content-Type at all are taken as well.",
            "content": {
                "application/json": {
                    "schema": _ref("schemas", "NewCustomer"),
                    "examples": {
                        "customer": {"summary": "A customer", "value": _request_example()},
                        "least": {"summary": "No more than is required", "value": _required_only(_request_example())},
                    },
                }
            },
        },
        "responses": {
            "201": _answer(
                "The customer as stored: texts trimmed, codes in capitals, the address in canonical form.",
                {"application/json": {"schema": _ref("schemas", "Customer"), "example": _customer_example()}},
                headers=("Location", "Idempotent-Replayed"),
                links={
                    "read": {"operationId": "readCustomer", "parameters": {"customer_id": "$response.body#/id"}},
                    "list": {"operationId": "listCustomers", "parameters": {"email": "$response.body#/email"}},
                },
            ),
            **_failures(*_OF_CREATE, *_FOR_SHOPS),
        },
    }


def _list() -> Json:
    return {
        "operationId": "listCustomers",
        "tags": ["customers"],
        "summary": "List customers",
        "description": (
            "In order of creation. Without `limit`, `after`, `before`, `page` and `per_page` it is all of them, however "
            "many. A page is told either by a cursor (`after` or `before` a customer, at most `limit`) or by number "
            "(`page` of `per_page`), never by both; by number, "
            f"at most {DEEPEST_OFFSET} customers can be skipped."
        ),
        "parameters": [
            _query("email", "Only customers with exactly this e-mail address.", {"type": "string"}),
            _query("external_id", "Only customers with exactly this id of the merchant's.", {"type": "string"}),
            _query("limit", f"Length of a page by cursor, {DEFAULT_LIMIT} unless given.", _count(MAXIMUM_LIMIT)),
            _query("after", "The page that follows this customer. Empty: the first page.", _cursor()),
            _query("before", "The page that precedes this customer. Empty: the last page.", _cursor()),
            _query("page", "Number of a page, the first is 1.", _count(DEEPEST_OFFSET)),
            _query("per_page", f"Length of a page by number, {DEFAULT_LIMIT} unless given.", _count(MAXIMUM_LIMIT)),
            _request_id_header(),
        ],
        "responses": {
            "200": _answer(
                "An array of customers, `[]` when there are none.",
                {
                    "application/json": {
                        "schema": {"type": "array", "items": _ref("schemas", "Customer")},
                        "example": [_customer_example()],
                    }
                },
                headers=("Link",),
            ),
            **_failures(errors.BadParameter.code, *_FOR_SHOPS),
        },
    }


def _read() -> Json:
    return {
        "operationId": "readCustomer",
        "tags": ["customers"],
        "summary": "Read a customer",
        "parameters": [
            {"name": "customer_id", "in": "path", "required": True, "schema": _ref("schemas", "CustomerId")},
            _request_id_header(),
        ],
        "responses": {
            "200": _answer(
                "The customer.",
                {"application/json": {"schema": _ref("schemas", "Customer"), "example": _customer_example()}},
            ),
            **_failures(errors.RecordNotFound.code, errors.RouteNotFound.code, *_FOR_SHOPS),
        },
    }


def _healthy() -> Json:
    return _open("operations", "healthy", "Is the process alive?", _answer("It is.", {"application/json": _status_schema("ok")}))


def _ready() -> Json:
    ready = _answer("Yes.", {"application/json": _status_schema("ready")})
    return _open("operations", "ready", "Can it serve, with its database?", ready, errors.Unavailable.code)


def _metrics() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return _open("operations", "metrics", "Metrics for Prometheus", _answer("In its text format.", text))


def _openapi() -> Json:
    described = {"application/json": {"schema": {"type": "object", "required": ["openapi", "info", "paths"]}}}
    return _open("documentation", "openapi", "This document", _answer("OpenAPI 3.1.", described))


def _docs() -> Json:
    page = {"text/html": {"schema": {"type": "string"}}}
    return _open("documentation", "docs", "A page to read and try the API", _answer("The page.", page))


def _docs_file() -> Json:
    media_types = sorted({asset.media_type for asset in ASSETS})
    operation = _open(
        "documentation",
        "docsFile",
        "A file of that page",
        _answer("The file.", {media_type: {} for media_type in media_types}, headers=("ETag",)),
        errors.RouteNotFound.code,
    )
    operation["parameters"] += [
        {"name": "file", "in": "path", "required": True, "schema": {"enum": [asset.name for asset in ASSETS]}},
        _header("If-None-Match", "The ETag that the client already has.", {"type": "string"}),
    ]
    operation["responses"]["304"] = _answer("The client's copy is still good.", {}, headers=("ETag",))
    return operation


def _open(tag: str, operation_id: str, summary: str, answer: Json, *codes: str) -> Json:
    """A GET that needs no credentials."""
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "security": [],
        "parameters": [_request_id_header()],
        "responses": {"200": answer, **_failures(*codes, *_ANYWHERE)},
    }


def _answer(description: str, content: Json, *, headers: Sequence[str] = (), links: Json | None = None) -> Json:
    answer: Json = {
        "description": description,
        "headers": {name: _ref("headers", name) for name in ("X-Request-Id", *headers)},
    }
    if content:
        answer["content"] = content
    if links:
        answer["links"] = links
    return answer


def _failures(*codes: str) -> Json:
    """The answers to these errors, by status: those of one status share a description."""
    statuses: dict[int, list[str]] = {}
    for code in codes:
        statuses.setdefault(_ANSWERS[code].status, []).append(code)
    return {str(status): _failure(status, statuses[status]) for status in sorted(statuses)}


def _failure(status: int, codes: Collection[str]) -> Json:
    sent = [{name for name, _ in _ANSWERS[code].headers} for code in codes]
    always = set.intersection(*sent) & _HEADER_OF.keys()
    content = {
        "application/json": {
            "schema": _ref("schemas", "Error"),
            "examples": {code: _ref("examples", code) for code in codes},
        }
    }
    named = ", ".join(f"`{code}`" for code in codes)
    return _answer(
        f"{HTTPStatus(status).phrase}: {named}.", content, headers=[name for name in _HEADERS if name.lower() in always]
    )


def _new_customer() -> Json:
    return {
        "type": "object",
        "description": (
            "Blank and null mean absent. Blank space around a text is trimmed. Unknown keys are ignored. "
            "A whole number is taken as its decimal text."
        ),
        "required": [field.name for field in model.FIELDS if field.required],
        "properties": {field.name: _property(field) for field in model.FIELDS},
        "allOf": [_country_rule(country) for country in fields.STATES],
        "examples": [_request_example()],
    }


def _property(field: Field) -> Json:
    """What a field accepts, whatever the others hold."""
    described: Json = {"description": field.description}
    if field.example is not None:
        described["examples"] = [field.example]
    if field is model.IP:
        return described | {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
    if field is model.EMAIL:
        return described | {"type": "string", "format": "idn-email", "maxLength": 254}
    if field is model.COUNTRY:
        return described | {"anyOf": [*_code(fields.COUNTRIES), _BLANK, _NULL]}
    return described | {"anyOf": [_ref("schemas", "Text"), {"type": "integer"}, _NULL]}


def _country_rule(country: str) -> Json:
    """What a country asks of the state, and of the zip where it has a form of its own."""
    then: Json = {
        "required": [model.STATE.name],
        "properties": {model.STATE.name: {"anyOf": _code(fields.STATES[country])}},
    }
    if country in fields.ZIP_OF_COUNTRY:
        form = fields.ZIP_OF_COUNTRY[country].pattern.removesuffix(r"\Z")
        then["properties"][model.ZIP.name] = {
            "anyOf": [
                {"type": "string", "pattern": f"^{_AROUND}{form}{_AROUND}$"},
                {"type": "integer", "minimum": 10_000, "maximum": 99_999},
                _BLANK,
                _NULL,
            ]
        }
    return {
        "if": {
            "required": [model.COUNTRY.name],
            "properties": {model.COUNTRY.name: {"type": "string", "pattern": f"^{_AROUND}{_any_case([country])}{_AROUND}$"}},
        },
        "then": then,
    }


def _code(codes: Collection[str]) -> list[Json]:
    """A two-letter code: first as it is stored, which people and code generators want to see, then as it is taken."""
    return [
        {"title": "code", "enum": sorted(codes)},
        {
            "title": "code in any case",
            "description": "Stored in capitals.",
            "type": "string",
            "pattern": f"^{_AROUND}(?:{_any_case(codes)}){_AROUND}$",
        },
    ]


def _any_case(codes: Iterable[str]) -> str:
    """``["CA", "CO"]`` becomes ``[Cc][AOao]``."""
    seconds: dict[str, str] = {}
    for code in sorted(codes):
        seconds[code[0]] = seconds.get(code[0], "") + code[1]
    return "|".join(f"[{first}{first.lower()}][{rest}{rest.lower()}]" for first, rest in seconds.items())


def _text(maximum: int) -> Json:
    inside = f"{_EDGE}(?:{_INNER}{{0,{maximum - 2}}}{_EDGE})?"
    return {
        "type": "string",
        "description": f"At most {maximum} characters, none of them a control character; blank is the same as absent.",
        "pattern": f"^{_AROUND}(?:{inside})?{_AROUND}$",
    }


def _customer() -> Json:
    stored = {field.name: _stored(field) for field in model.FIELDS}
    return {
        "type": "object",
        "description": "A customer. More keys may follow these.",
        "required": ["id", *stored],
        "properties": {"id": _ref("schemas", "CustomerId"), **stored},
        "examples": [_customer_example()],
    }


def _stored(field: Field) -> Json:
    if field is model.COUNTRY:
        return {"description": field.description, "enum": [*sorted(fields.COUNTRIES), None]}
    return {
        "description": field.description,
        "type": "string" if field.required else ["string", "null"],
        "minLength": 1,
        "maxLength": field.maximum,
    }


def _error() -> Json:
    return {
        "type": "object",
        "required": ["message"],
        "properties": {
            "message": {"type": "string", "minLength": 1, "description": "A sentence that says all that is wrong."},
            "errors": {
                "type": "object",
                "description": "The fields at fault, each with what is wrong with it.",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
        },
    }


def _status_schema(status: str) -> Json:
    return {"schema": {"type": "object", "required": ["status"], "properties": {"status": {"const": status}}}}


def _request_example() -> Json:
    return {field.name: field.example for field in model.FIELDS if field is not model.EXTERNAL_ID}


def _required_only(example: Json) -> Json:
    return {field.name: example[field.name] for field in model.FIELDS if field.required}


def _customer_example() -> Json:
    return {"id": _ID_EXAMPLE, **_request_example(), model.EXTERNAL_ID.name: None}


def _idempotency_header(name: str, description: str) -> Json:
    rule = f" 1 to {idempotency.KEY_MAXIMUM} printable ASCII characters."
    return _header(name, description + rule, {"type": "string", "pattern": _IDEMPOTENCY_KEY})


def _request_id_header() -> Json:
    return _header("X-Request-Id", "Comes back with the answer and stands in the log.", {"type": "string"})


def _header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _count(maximum: int) -> Json:
    """Without ``default``: pages that try the API fill it in, and a page's length must not come with another's number."""
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def _cursor() -> Json:
    return {"type": "string", "pattern": f"^(?:{_CUSTOMER_ID[1:-1]})?$"}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
