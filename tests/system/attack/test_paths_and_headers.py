"""Paths that get around a proxy's rule, headers of all responses, limits of headers, and bodies that are costly to decode."""

from __future__ import annotations

import time

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from support.caller import Caller
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import Start, add_shop
from support.waiting import eventually
from support.wire import request

BODY_MAXIMUM = 65_536
NUMBERS = (
    "1e308",
    "1e-308",
    "1.7976931348623157e308",
    "0." + "1" * 760 + "e-300",
    "1" * 4_299,
    "1" * 60_000,
    "1e" + "9" * 60_000,
)


@pytest.fixture
def caller(start: Start, master_key: MasterKey) -> Caller:
    process = start("--max-header-bytes", "8192")
    return Caller(process, add_shop(process.database, master_key))


def test_other_spellings_do_not_reach_metrics_and_every_response_is_protected(caller: Caller) -> None:
    spellings = ("/metrics/", "//metrics", "/./metrics", "/x/../metrics", "/metrics/.", "/%2fmetrics", "/metrics%2f")
    assert [caller.get(path).status for path in spellings] == [404] * len(spellings)
    assert caller.get("/metrics").status == 200
    assert caller.get("/customers/").status == 200  # of clients that join an address and a path

    asked = ("/metrics", "/customers", "/nothing", "/docs", "/docs/docs.js", "/openapi.json", "/v2/checkout?token=x", "/healthz")
    for answer in (*map(caller.get, asked), caller.create(b"{"), caller.ask(request("HEAD", "/customers", caller.login))):
        assert [value for name, value in answer.headers if name == "x-content-type-options"] == ["nosniff"], answer
        assert answer.header("strict-transport-security") is None  # the public URL is http

    # The limits of headers are exact: 100 headers with Host, and so many bytes with the request line.
    empty = len(request("GET", "/healthz", ("X-Long", "")))
    sizes = [caller.ask(request("GET", "/healthz", ("X-Long", "x" * (size - empty)))).status for size in (8_192, 8_193)]
    assert sizes == [200, 431]
    counts = [caller.ask(request("GET", "/healthz", *[(f"X-{one}", "x") for one in range(count)])).status for count in (99, 100)]
    assert counts == [200, 431]


def test_no_body_of_numbers_or_of_depth_costs_more_than_others(caller: Caller) -> None:
    """Of each kind a body of the largest size. Numbers near 1e308 took 0.3 seconds, a text of this size takes 0.002."""

    def seconds(value: str) -> float:
        body = f'{{"plan":{{"id":"pln_1"}},"additional_data":{{"a":{value}}}}}'.encode()
        assert len(body) <= BODY_MAXIMUM
        raw = request("POST", "/subscriptions", caller.login, ("Content-Type", "application/json"), body=body)
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            assert caller.ask(raw).status in (400, 422)
            taken.append(time.perf_counter() - started)
        return min(taken)

    usual = seconds('"' + "a" * 65_000 + '"')
    values = ["[" + ",".join([number] * (65_000 // (len(number) + 1) or 1)) + "]" for number in NUMBERS]
    values += ["[" * 30_000 + "]" * 30_000, '{"a":' * 10_000 + "1" + "}" * 10_000, '"' + "4567 " * 13_000 + '"']
    for value in values:
        assert seconds(value) < usual + 0.15, value[:40]


def test_metrics_have_a_port_of_their_own_and_https_is_remembered(start: Start) -> None:
    port = free_port()
    options = ("--workers", "2", "--metrics-port", str(port), "--public-url", "https://pay.example", "--hsts-seconds", "600")
    process: ServerProcess = start(*options)

    assert [httpx.get(f"{process.url}{path}").status_code for path in ("/metrics", "/%6detrics")] == [404, 404]
    assert eventually(lambda: 'route="/healthz"' in httpx.get(f"http://127.0.0.1:{port}/metrics").text, 10)
    assert httpx.get(f"{process.url}/healthz").headers["strict-transport-security"] == "max-age=600"
    assert process.stop() == 0
