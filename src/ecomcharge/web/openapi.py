"""Builds the API description (OpenAPI 3.1) of the parts that the features give, and serves it at ``/openapi.json``.

A part describes operations beside their routes. The schemas of answers are made of the types that the code answers with,
statuses, headers and bodies of errors of the errors themselves; ``wire_forms`` describes what requests may hold, and
``openapi.json`` has the texts that all parts share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib import metadata, resources
from typing import Any, Final

import msgspec

from ecomcharge.base import errors
from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.faults import CODES
from ecomcharge.base.validation import BLANK, INVALID_IP, message_of
from ecomcharge.web import idempotency, problems
from ecomcharge.web.error_responses import INTERNAL_ERROR, STATUS_OF, error_response
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.messages import Request, Response, json_response
from ecomcharge.web.router import Route
from ecomcharge.web.wire_forms import Json, matching, ref, text

FORM: Final = "application/x-www-form-urlencoded"
HTML: Final[Json] = {"text/html": {"schema": {"type": "string"}}}


def read_json(package: str, name: str) -> Json:
    """A file of texts or examples beside the code of a package."""
    data: Json = json.loads(resources.files(package).joinpath(name).read_text("utf-8"))
    return data


_SHARED: Final[Json] = read_json("ecomcharge.web", "openapi.json")
_REQUEST: Final = _SHARED["components"]["headers"]["X-Request-Id"]["example"]

# Errors


@dataclass(frozen=True)
class Failure:
    """A response to an error. ``name`` is the name of its example."""

    name: str
    response: Response
    problem: problems.Problem | None = None  # the other form of a 422


def failure(error: EcomchargeError, name: str = "") -> Failure:
    response = error_response(error)
    problem = problems.problem_of(error, _REQUEST) if response.status == problems.STATUS else None
    return Failure(name or error.code, response, problem)


def invalid(name: str, texts: Mapping[str, Any]) -> Failure:
    """The fields at fault, by name, each with its texts."""
    return failure(errors.ValidationFailed(message_of(texts), texts, errors_first=True), name)


_IP_MISSING: Final = {"ip": [INVALID_IP, BLANK]}  # [S]
_WITH_ARGUMENTS: Final[tuple[EcomchargeError, ...]] = (
    errors.BadParameter(f"Limit must be a whole number between 1 and {MAXIMUM_LIMIT}"),
    errors.MethodNotAllowed(["GET", "HEAD", "POST"]),
    errors.ValidationFailed(message_of(_IP_MISSING), _IP_MISSING),
    errors.TooManyRequests("shop", 100, 1, 1),
)
# One of each: the description takes the status, the body and the headers from it.
ERRORS: Final = {kind: kind() for kind in STATUS_OF if kind not in map(type, _WITH_ARGUMENTS)} | {
    type(error): error for error in _WITH_ARGUMENTS
}
_FAILURES: Final = {kind: failure(error) for kind, error in ERRORS.items()}
_INTERNAL: Final = Failure("internal_error", Response(500, INTERNAL_ERROR, [], "internal_error"))
Failures = Sequence[type[EcomchargeError] | Failure]

ANYWHERE: Final[Failures] = (errors.MethodNotAllowed, _INTERNAL, errors.ConfigurationError)
WITH_CREDENTIALS: Final[Failures] = (errors.Unauthorized, errors.TooManyRequests, errors.Unavailable)
OF_A_BODY: Final[Failures] = (errors.MalformedBody, errors.BodyTooSlow, errors.BodyTooLarge)
OF_JSON: Final[Failures] = (*OF_A_BODY, errors.UnsupportedContentType, errors.NotAnObject)
OF_AN_ID: Final[Failures] = (errors.RecordNotFound, errors.RouteNotFound)
OF_A_KEY: Final[Failures] = (errors.OutcomeUnknown, errors.BadParameter, errors.StillRunning, errors.IdempotencyKeyReused)

# Parameters, bodies and answers


def parameter(place: str, name: str, description: str, schema: Json | None = None, **more: Any) -> Json:
    return {"name": name, "in": place, "description": description, "schema": schema or {"type": "string"}, **more}


def query(name: str, description: str, schema: Json | None = None, **more: Any) -> Json:
    return parameter("query", name, description, schema, **more)


def path_parameter(name: str, description: str, schema: Json) -> Json:
    return parameter("path", name, description, schema, required=True)


def count(maximum: int) -> Json:
    """Without ``default``: pages that try the API fill it in, and ``limit`` and ``page`` exclude each other."""
    return {"type": "integer", "minimum": 1, "maximum": maximum}


def cursor(id: re.Pattern[str]) -> Json:
    return {"type": "string", "pattern": f"^(?:{matching(id)['pattern'][1:-1]})?$"}


def selection(plural: str, order: str) -> list[Json]:
    """The parameters of every list of these records. ``order`` describes the order of the list."""
    moment = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}
    return [
        query("order", f"Order of creation: {order}", {"enum": ["asc", "desc"]}),
        query("created_from", f"Only {plural} created at this time or later. ISO 8601, UTC unless it has an offset.", moment),
        query("created_to", f"Only {plural} created before this time, or until the end of this date.", moment),
        query("count", "Whether the answer has `X-Total-Count`.", {"type": "boolean"}),
    ]


_REQUEST_ID: Final = parameter("header", "X-Request-Id", "Comes back with the answer and is written to the log.")
_KEY_TEXT: Final = f"1 to {idempotency.KEY_MAXIMUM} printable ASCII characters."
_KEY_REST: Final = f"(?:[ -~]{{0,{idempotency.KEY_MAXIMUM - 2}}}"
_KEY: Final = {"type": "string", "pattern": f'^(?:"[!-~]{_KEY_REST}[!-~])?"|[!#-~]{_KEY_REST}[!-~])?|"{_KEY_REST}[!#-~])?)$'}
IDEMPOTENCY: Final = (
    parameter("header", "Idempotency-Key", f"Names this request, with quotes or without. Wins over RequestID. {_KEY_TEXT}", _KEY),
    parameter("header", "RequestID", f"The platform's own name of the same header. {_KEY_TEXT}", _KEY),
)
IF_MATCH: Final = parameter(
    *("header", "If-Match", "Change only this version: its ETag, several of them with commas between, or `*` for any version."),
    {"type": "string", "pattern": r'^[ \t]*(?:\*|[ \t,]*"[!#-~]*"(?:[ \t]*,[ \t,]*"[!#-~]*")*[ \t,]*)[ \t]*$'},
)
IF_NONE_MATCH: Final = parameter("header", "If-None-Match", "The ETag of the copy that the client has.")
PREFER: Final = parameter(
    *(
        "header",
        "Prefer",
        "`stale=SECONDS`: the answer may come from a replica that is at most so many seconds behind (RFC 7240).",
    ),
    {"type": "string", "examples": ["stale=30"]},
)
_KEPT_HOURS: Final = idempotency.KEPT_MILLISECONDS // 3_600_000


OF_A_LIST: Final = ("Link", "X-Total-Count", "Preference-Applied")  # headers


def json_content(schema: str, example: object = None, **examples: tuple[str, object]) -> Json:
    """With one example, or with several by name, each with a summary before it."""
    named = {name: {"summary": summary, "value": value} for name, (summary, value) in examples.items()}
    return {"application/json": {"schema": ref(schema), **({"examples": named} if named else {"example": example})}}


def json_list(schema: str, example: object) -> Json:
    return {"application/json": {"schema": {"type": "array", "items": ref(schema)}, "example": [example]}}


def json_body(schema: str, **examples: tuple[str, object]) -> Json:
    description = "The media types `application/*+json` and `text/json` are accepted too, and no Content-Type at all."
    return {"required": True, "description": description, "content": json_content(schema, **examples)}


def answer(description: str, content: Json | None = None, *headers: str, links: Json | None = None) -> Json:
    names = {name: ref(name, "headers") for name in ("X-Request-Id", *headers)}
    more = {"content": content, "links": links}
    return {"description": description, "headers": names, **{key: value for key, value in more.items() if value}}


def link(operation_id: str, parameter: str, value: str = "$response.body#/id") -> Json:
    return {"operationId": operation_id, "parameters": {parameter: value}}


# Operations


@dataclass(frozen=True)
class Operation:
    """One method of one path. Failures that every such operation has are added to its own."""

    method: str
    path: str
    id: str
    summary: str
    description: str
    answers: Mapping[int, Json]
    own_failures: Failures = ()
    parameters: Sequence[Json] = ()
    body: Json | None = None
    public: bool = False  # asks for no credentials

    def failures(self) -> list[Failure]:
        of_body = () if self.body is None else OF_A_BODY if FORM in self.body["content"] else OF_JSON
        kinds = (*of_body, *self.own_failures, *(() if self.public else WITH_CREDENTIALS), *ANYWHERE)
        return [kind if isinstance(kind, Failure) else _FAILURES[kind] for kind in kinds]

    def to_json(self, tag: str) -> Json:
        more: Json = {"security": [] if self.public else None, "requestBody": self.body}
        return {
            "operationId": self.id,
            "tags": [tag],
            "summary": self.summary,
            "description": self.description,
            "parameters": [*self.parameters, _REQUEST_ID],
            **{key: value for key, value in more.items() if value is not None},
            "responses": self._responses(),
        }

    def _responses(self) -> Json:
        """The failures of one status share a description; an answer of the same status comes before them."""
        by_status: dict[int, dict[str, Failure]] = {}
        for failed in self.failures():
            by_status.setdefault(failed.response.status, {})[failed.name] = failed
        responses = {str(status): _failed(status, examples) for status, examples in by_status.items()}
        for status, answered in self.answers.items():
            content = answered.get("content", {}) | responses.get(str(status), {}).get("content", {})
            responses[str(status)] = answered | ({"content": content} if content else {})
        if min(responses) >= "3":  # it only redirects, and linters want an answer of 2xx or a default one
            responses["default"] = answer("Any other error.", json_content("Error", {"message": "Something went wrong"}))
        return {status: responses[status] for status in sorted(responses)}


def _failed(status: int, failures: Mapping[str, Failure]) -> Json:
    responses = [failed.response for failed in failures.values()]
    sent = set.intersection(*({name for name, _ in response.headers} for response in responses))
    content: Json = {"application/json": {"schema": ref("Error"), "examples": {name: ref(name, "examples") for name in failures}}}
    found = [failed.problem for failed in failures.values() if failed.problem is not None]
    if found:
        content[problems.MEDIA_TYPE] = {
            "schema": ref("Problem"),
            "example": max(found, key=lambda problem: len(problem["errors"])),
        }
    codes = ", ".join(dict.fromkeys(f"`{response.code}`" for response in responses))
    headers = [name for name in _SHARED["components"]["headers"] if name.lower() in sent]
    return answer(f"{HTTPStatus(status).phrase}: {codes}.", content, *headers)


@dataclass(frozen=True)
class Resource:
    """Objects of one kind, which are created, read and listed under ``/{noun}s``."""

    noun: str
    id: re.Pattern[str]
    example: Json
    headers: Sequence[str] = ()  # of an answer with one object

    @property
    def schema(self) -> str:
        return self.noun.capitalize()

    def id_schema(self) -> Json:
        return matching(self.id, examples=[self.example["id"]])

    def by_id(self) -> Json:
        id = ref(f"{self.schema}Id")
        return {"type": "object", "description": f"A {self.noun} of this shop.", "required": ["id"], "properties": {"id": id}}

    def place(self) -> Json:
        return path_parameter(f"{self.noun}_id", f"The id of the {self.noun}.", ref(f"{self.schema}Id"))

    def create(self, description: str, body: Json, created: Json, *failures: type[EcomchargeError] | Failure) -> Operation:
        replay = f"With an idempotency key, a repeated request within {_KEPT_HOURS} hours gets the answer of the first one."
        names = ("POST", f"/{self.noun}s", f"create{self.schema}", f"Create a {self.noun}", f"{description} {replay}".strip())
        return Operation(*names, {201: created}, (*OF_A_KEY, *failures), IDEMPOTENCY, body)

    def read(self, description: str, *failures: type[EcomchargeError]) -> Operation:
        names = ("GET", f"/{self.noun}s/{{{self.noun}_id}}", f"read{self.schema}", f"Read a {self.noun}", description)
        found = answer(f"The {self.noun}.", json_content(self.schema, self.example), *self.headers)
        return Operation(*names, {200: found}, (*failures, *OF_AN_ID), [self.place()])

    def list(self, filters: Mapping[str, str]) -> Operation:
        """``filters`` are query parameters, each with what it selects."""
        noun, cursor_of_noun, by_cursor = self.noun, cursor(self.id), count(MAXIMUM_LIMIT)
        description = (
            "In order of creation, or newest first. Without `limit`, `after`, `before`, `page` and `per_page` the answer holds "
            f"all {noun}s, however many. A page is chosen either by a cursor (`after` or `before` a {noun}, at most `limit`) or "
            f"by number (`page` of `per_page`), not by both; by number, at most {DEEPEST_OFFSET} {noun}s can be skipped."
        )
        names = ("GET", f"/{noun}s", f"list{self.schema}s", f"List {noun}s", description)
        found = answer(f"An array of {noun}s, `[]` when there are none.", json_list(self.schema, self.example), *OF_A_LIST)
        parameters = [
            *(query(name, f"Only {noun}s {selects}.") for name, selects in filters.items()),
            query("limit", f"Length of a page by cursor, {DEFAULT_LIMIT} unless given.", by_cursor),
            query("after", f"The page that follows this {noun} in the list. Empty: the first page.", cursor_of_noun),
            query("before", f"The page that precedes this {noun} in the list. Empty: the last page.", cursor_of_noun),
            query("page", "Number of a page, the first is 1.", count(DEEPEST_OFFSET)),
            query("per_page", f"Length of a page by number, {DEFAULT_LIMIT} unless given.", by_cursor),
            *selection(f"{noun}s", "`asc` (oldest first) unless given."),
            PREFER,
        ]
        return Operation(*names, {200: found}, (errors.BadParameter,), parameters)


def public_get(path: str, id: str, summary: str, description: str, found: Json, *failures: type[EcomchargeError]) -> Operation:
    return Operation("GET", path, id, summary, description, {200: found}, failures, public=True)


def public_file(path: str, id: str, summary: str, kinds: Mapping[str, str]) -> Operation:
    """A GET of one of these files, by name and media type."""
    found = answer("The file.", {kind: {} for kind in sorted(set(kinds.values()))}, "ETag")
    unchanged = answer("The client's copy is up to date.", None, "ETag")
    name = path_parameter("file", "The name of the file.", {"enum": list(kinds)})
    operation = public_get(path, id, summary, "Sent with an ETag.", found, errors.RouteNotFound)
    return replace(operation, parameters=[name, IF_NONE_MATCH], answers={200: found, 304: unchanged})


# The document


@dataclass(frozen=True)
class Part:
    """The operations of one tag, the schemas that they need, and the messages that the server sends by itself.

    ``types`` become schemas under their own names, without ``Object`` at the end; ``schemas`` are written out, and extend
    those of types where the names are equal.
    """

    tag: str
    description: str
    operations: Sequence[Operation] = ()
    types: Sequence[type] = ()
    schemas: Mapping[str, Json] = field(default_factory=dict)
    webhooks: Mapping[str, Json] = field(default_factory=dict)


def document(parts: Sequence[Part], base_url: str) -> Json:
    """The whole description. ``base_url`` is where clients find this server."""
    paths: dict[str, Json] = {}
    examples: dict[str, Json] = {}
    schemas = _schemas_of([kind for part in parts for kind in part.types] + [problems.Problem, problems.FieldFault])
    schemas["FieldFault"]["properties"]["code"]["enum"] = list(CODES)
    for part in parts:
        for operation in part.operations:
            paths.setdefault(operation.path, {})[operation.method.lower()] = operation.to_json(part.tag)
            for failed in operation.failures():
                examples[failed.name] = {"summary": failed.name, "value": json.loads(failed.response.body)}
        for name, schema in part.schemas.items():
            schemas[name] = _extended(schemas.get(name, {}), schema)
    shared = _SHARED["components"]
    return _SHARED | {
        "info": _SHARED["info"] | {"version": metadata.version("ecomcharge")},
        "servers": [{"url": base_url, "description": "This server."}],
        "tags": [{"name": part.tag, "description": part.description} for part in parts],
        "paths": paths,
        "webhooks": {name: message for part in parts for name, message in part.webhooks.items()},
        "components": shared | {"schemas": {**schemas, "Text": text(), **shared["schemas"]}, "examples": examples},
    }


def _schemas_of(types: Sequence[type]) -> dict[str, Json]:
    """Of each type and of the types that it uses. Properties keep the order of the type; a struct writes all of its fields,
    unless it omits defaults."""
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_name = {kind.__name__: kind for kind in types}
    for name, schema in components.items():
        del schema["title"]
        order = list(by_name[name].__annotations__) if name in by_name else list(schema["properties"])
        written = order if _writes_all_fields(by_name.get(name, dict)) else schema["required"]
        schema["properties"] = {key: schema["properties"][key] for key in order}
        schema["required"] = [key for key in order if key in written]
    return {name.removesuffix("Object"): _plain(schema) for name, schema in components.items()}


def _writes_all_fields(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct) and not kind.__struct_config__.omit_defaults


def _plain(schema: Any) -> Any:
    """References under the public names, ``{"type": ["string", "null"]}`` for a value that may be null, and no defaults."""
    match schema:
        case list():
            return [_plain(entry) for entry in schema]
        case {"$ref": str(reference)}:
            return {**schema, "$ref": reference.removesuffix("Object")}
        case {"anyOf": [{"type": str(kind)} as form, {"type": "null"}]}:
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
            return form | rest | {"type": [kind, "null"]}
        case {"enum": [only]}:
            return {"const": only}
        case dict():
            return {key: _plain(value) for key, value in schema.items()}
    return schema


def _extended(schema: Json, more: Json) -> Json:
    """``more`` replaces keywords and extends properties. A reference or a choice takes the place of a property's own type."""
    properties = dict(schema.get("properties", {}))
    for name, extension in more.get("properties", {}).items():
        own = properties.get(name, {})
        if extension.keys() & {"$ref", "anyOf", "enum", "type"}:
            own = {key: own[key] for key in own if key == "description"}
        properties[name] = own | extension
    return {**schema, **more, **({"properties": properties} if properties else {})}


class OpenApiRoutes:
    """Builds the document when it is first asked for: most server processes never are."""

    def __init__(self, build: Callable[[], Json]) -> None:
        self._build = build
        self._document: bytes | None = None

    def routes(self) -> Iterable[Route]:
        return [Route("GET", "/openapi.json", self.read, needs_shop=False, exact=True)]

    async def read(self, request: Request) -> Response:
        if self._document is None:
            self._document = json.dumps(self._build(), ensure_ascii=False).encode()
        return json_response(200, self._document)
