"""The API's description says what the server does, no more and no less.

schemathesis loads this file too, for its hooks.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sysconfig
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema_rs
import pytest
import schemathesis

from ecomcharge.app import App
from ecomcharge.customers.model import CustomerBody, checked
from ecomcharge.errors import EcomchargeError, Invalid
from ecomcharge.settings import Settings
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT
from ecomcharge.web.openapi import ERRORS, document
from ecomcharge.web.server import Route
from ecomcharge.web.wire import STATUS_OF

if TYPE_CHECKING:
    from conftest import Shop

MAX_SECONDS = 35
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}

REQUEST_EXAMPLE = {
    "first_name": "John",
    "last_name": "Doe",
    "address": "1st Street",
    "country": "US",
    "city": "Denver",
    "zip": "92006",
    "state": "CO",
    "phone": "+1-555-555-5555",
    "email": "customer@example.com",
    "ip": "127.0.0.1",
}
ERROR_EXAMPLE = {
    "message": "Ip address is invalid. Ip can't be blank",
    "errors": {"ip": ["address is invalid", "can't be blank"]},
}
IDEMPOTENCY_KEY = next(
    parameter["schema"]["pattern"]
    for parameter in document()["paths"]["/customers"]["post"]["parameters"]
    if parameter["name"] == "RequestID"
)
LEAST = {"email": "customer@example.com", "ip": "127.0.0.1"}


def test_served_without_credentials_and_as_built(server: Shop) -> None:
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json() == document()


def test_document_is_valid_openapi_3_1() -> None:
    loaded = schemathesis.openapi.from_dict(document())
    loaded.validate()
    assert loaded.specification.name == "Open API 3.1.0"
    for name in document()["components"]["schemas"]:
        jsonschema_rs.meta.validate(resolved(name))


def test_every_route_is_described_and_every_description_has_a_route(tmp_path: Path) -> None:
    served = {(route.method.lower(), route.path): route.needs_shop for route in registered_routes(tmp_path)}
    described = {
        (method, re.sub(r"\{[^}]+\}", "{}", path)): operation.get("security", document()["security"]) != []
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    assert described == served


def test_every_error_is_described_with_its_status_and_headers() -> None:
    assert {type(error) for error in ERRORS} == set(STATUS_OF)
    for error in ERRORS:
        found = [answer for status, answer in failures() if error.code in codes_of(answer) and status == STATUS_OF[type(error)]]
        assert found, f"{error.code} is on no operation"
    headers = {status: set(answer["headers"]) for status, answer in failures()}
    assert headers[401] == {"X-Request-Id", "WWW-Authenticate"}
    assert headers[405] == {"X-Request-Id", "Allow"}
    assert headers[429] == {"X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"}
    assert headers[503] == {"X-Request-Id", "Retry-After"}


def test_every_error_of_the_program_is_in_the_document() -> None:
    private = {"EcomchargeError", "Unusable"}  # the base, and what only the operator sees
    public = {
        kind for kind in subclasses(EcomchargeError) if kind.__module__ == "ecomcharge.errors" and kind.__name__ not in private
    }
    assert public == set(STATUS_OF)


def test_documented_examples_are_the_documentations_own() -> None:
    examples = document()["paths"]["/customers"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples["customer"]["value"] == REQUEST_EXAMPLE
    assert list(examples["customer"]["value"]) == list(REQUEST_EXAMPLE)
    assert document()["components"]["examples"]["invalid"]["value"] == ERROR_EXAMPLE


@pytest.mark.parametrize(
    "difference",
    [
        {},
        {"country": None, "zip": "", "state": "  ", "phone": 15555555555, "unknown": [1]},
        {"country": " us ", "state": "co", "zip": 92006},
        {"country": "US", "state": "AE", "zip": " 92006-1234\n"},
        {"country": "us", "state": "co", "zip": 9200},
        {"country": "US"},
        {"country": "US", "state": None},
        {"country": "US", "state": "ON"},
        {"country": "US", "state": "CO", "zip": "9200"},
        {"country": "US", "state": "CO", "zip": ""},
        {"country": "CA"},
        {"country": "CA", "state": "on", "zip": "K1A 0B1"},
        {"country": "GB", "state": "any", "zip": "any"},
        {"country": "UK"},
        {"country": 1},
        {"country": ""},
        {"city": "\u3000" + "x" * 255 + "\t"},
        {"city": "x" * 256},
        {"city": "\U0001f600" * 255},
        {"city": "a\nb"},
        {"city": "\x00"},
        {"city": "a\x85b"},
        {"city": True},
        {"city": 1.5},
        {"city": ["x"]},
        {"email": None},
        {"email": "customer"},
        {"email": "j\u00fcrgen@b\u00fccher.example"},
        {"ip": "::ffff:1.2.3.4"},
        {"ip": "127.0.0.01"},
        {"ip": "fe80::1%eth0"},
        {"ip": ""},
        {"ip": 1},
    ],
)
def test_schema_and_server_agree_on_a_body(difference: dict[str, Any]) -> None:
    body = {**LEAST, **difference}
    assert accepted_by_schema(body) == accepted_by_code(body)


def test_schemathesis_finds_nothing_against_a_running_server(server: Shop, tmp_path: Path) -> None:
    """Every check, every phase. Its output names the seed."""
    command = [
        str(Path(sysconfig.get_path("scripts"), "schemathesis")),
        *("run", f"{server.url}/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        *("--max-time", str(MAX_SECONDS), "--continue-on-failure", "--no-color", "--generation-database", "none"),
        *("--auth", f"{server.shop_id}:{server.secret_key}", "--output-sanitize", "false", "--output-truncate", "false"),
        # Credentials are the command's business: it would "leave out" a header that --auth then adds again.
        *("--generation-with-security-parameters", "false"),
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": Path(__file__).stem, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)
    print(done.stdout)  # pytest shows it when the test fails
    assert done.returncode == 0, f"schemathesis: {seed_of(done.stdout)}\n{done.stderr}"
    assert re.search(r"API Operations:\n +Selected: 8/8\n +Tested: 8", done.stdout), done.stdout


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Take out of a request what a schema has no words for: mostly, what is about two things at once."""
    valid = case.meta is None or case.meta.generation.mode.is_positive
    if case.operation.label == "POST /customers":
        _let_request_id_count(case.headers)
        if valid:
            _use_no_key_twice(case)
            _write_whole_numbers_whole(case.body)
    elif case.operation.label == "GET /customers" and valid:
        _tell_the_page_in_one_way(case.query)


_body_of_key: dict[str, str] = {}


def _let_request_id_count(headers: MutableMapping[str, str]) -> None:
    """Next to an Idempotency-Key nobody reads a RequestID, so a wrong one is only told of when it stands alone."""
    if "Idempotency-Key" in headers and not re.search(IDEMPOTENCY_KEY, headers.get("RequestID", "x")):
        del headers["Idempotency-Key"]


def _use_no_key_twice(case: schemathesis.Case[Any]) -> None:
    """A key belongs to the first body that it came with; a new body gets a new key."""
    body = json.dumps(case.body, sort_keys=True)
    for name in ("Idempotency-Key", "RequestID"):
        key = case.headers.get(name)
        if key is not None and _body_of_key.setdefault(key.strip('"'), body) != body:
            case.headers[name] = secrets.token_hex(8)


def _write_whole_numbers_whole(body: Any) -> None:
    """To JSON Schema 1.0 is an integer like any other; the server takes numbers without a point only."""
    for name, value in body.items():
        if isinstance(value, float) and value.is_integer():
            body[name] = int(value)


def _tell_the_page_in_one_way(query: dict[str, Any]) -> None:
    """Either a cursor or a number, and not beyond the deepest page."""
    by_cursor = [name for name in ("after", "before", "limit") if name in query]
    by_number = [name for name in ("page", "per_page") if name in query]
    for name in by_number if by_cursor else ():
        del query[name]
    if "after" in query and "before" in query:
        del query["before"]
    if "page" in query and (int(query["page"]) - 1) * int(query.get("per_page", DEFAULT_LIMIT)) > DEEPEST_OFFSET:
        del query["page"]


def registered_routes(folder: Path) -> list[Route]:
    async def start_and_look() -> list[Route]:
        app = App(Settings(database=f"sqlite:///{folder}/test.db", sandbox=True))
        await app.start()
        try:
            return [route for methods in app.server._router._methods.values() for route in methods.values()]
        finally:
            await app.stop()

    return asyncio.run(start_and_look())


def failures() -> list[tuple[int, dict[str, Any]]]:
    """Status and answer, of every answer of 400 and above of every operation."""
    operations = [operation for methods in document()["paths"].values() for operation in methods.values()]
    answers = [(int(status), answer) for operation in operations for status, answer in operation["responses"].items()]
    return [(status, answer) for status, answer in answers if status >= 400]


def codes_of(answer: dict[str, Any]) -> set[str]:
    return set(answer["content"].get("application/json", {}).get("examples", ()))


def subclasses(kind: type) -> set[type]:
    below: list[type] = type.__subclasses__(kind)
    return {kind}.union(*map(subclasses, below))


def resolved(name: str) -> dict[str, Any]:
    """A schema of the document that stands alone."""
    described = document()
    return {"$ref": f"#/components/schemas/{name}", "components": described["components"]}


def accepted_by_schema(body: dict[str, Any]) -> bool:
    return jsonschema_rs.Draft202012Validator(resolved("NewCustomer"), validate_formats=True).is_valid(body)


def accepted_by_code(body: dict[str, Any]) -> bool:
    known = {name: value for name, value in body.items() if name in CustomerBody.__struct_fields__}
    try:
        checked(CustomerBody(**known))
    except Invalid:
        return False
    return True


def seed_of(output: str) -> str:
    found = re.search(r"Seed: \d+", output)
    return found.group() if found else "no seed"
