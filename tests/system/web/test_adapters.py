"""The RSGI and the ASGI adapter give the same responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest

from ecomcharge.base.settings import Settings
from ecomcharge.runtime.composition import App
from support.caller import BODY_LIMIT, GOOD, Caller
from support.shops import MASTER_KEY
from support.wire import request

T = TypeVar("T")
NO_HEADERS: Mapping[str, str] = {}


class Asked(NamedTuple):
    method: str
    target: str
    headers: Mapping[str, str] = NO_HEADERS
    body: bytes | AsyncIterator[bytes] | None = None

    @property
    def auth(self) -> Any:
        return None if "authorization" in self.headers else httpx.USE_CLIENT_DEFAULT


AT_BOTH_ADAPTERS = [
    Asked("GET", "/customers"),
    Asked("HEAD", "/customers"),
    Asked("GET", "/customers?limit=2"),
    Asked("GET", "/customers/{id}"),
    Asked("HEAD", "/customers/{id}"),
    Asked("GET", "/%63ustomers/{id}"),
    Asked("GET", "/customers/unknown"),
    Asked("GET", "/customers?limit=no"),
    Asked("GET", "/customers", {"authorization": "Basic no"}),
    Asked("GET", "/nope"),
    Asked("DELETE", "/customers"),
    Asked("GET", "/healthz"),
    Asked("GET", "/readyz"),
    Asked("POST", "/customers", {}, GOOD),
    Asked("POST", "/customers", {"content-type": "application/vnd.ecomcharge+json"}, GOOD),
    Asked("POST", "/customers", {"content-type": "text/plain"}, GOOD),
    Asked("POST", "/customers", {}, b"{}"),
    Asked("POST", "/customers", {}, b"[]"),
    Asked("POST", "/customers", {}, b"{"),
    Asked("POST", "/customers", {}, b""),
    Asked("POST", "/customers", {}, b" " * (BODY_LIMIT + 1)),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, GOOD),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, GOOD),
    Asked("POST", "/customers", {"idempotency-key": "twice"}, b'{"email":"b@b.co","ip":"127.0.0.1"}'),
    Asked("POST", "/customers", {"requestid": ""}, GOOD),
]


def _comparable(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """The response without values that differ by request or come from the server program.

    The server program closes the connection if it sent a response before it received the request's body, which depends
    on the timing of packets. Only after 413 the adapter closes it.
    """
    ours = dict(response.headers)
    for name in ("date", "server", "x-request-id", "transfer-encoding", "last-modified"):
        ours.pop(name, None)
    if response.status_code != 413:
        ours.pop("connection", None)
    body: Any = response.content
    if response.request.method == "POST" and response.status_code == 201:
        body = {name: value for name, value in response.json().items() if name != "id"}
        assert ours.pop("location") == "/customers/" + response.json()["id"]
    return response.status_code, ours, body


async def _with_asgi(caller: Caller, work: Callable[[Any], Awaitable[T]]) -> T:
    """Run the other adapter on the caller's database in this process."""
    app = App(
        Settings(
            database=caller.process.database,
            master_key=MASTER_KEY,
            max_body_bytes=BODY_LIMIT,
            body_timeout_seconds=1,
            failed_logins_per_minute=0,
            log_format="json",
        )
    )
    await app.start()
    try:
        return await work(app.asgi())
    finally:
        await app.stop()


def _through_asgi(caller: Caller, requests: Sequence[Asked]) -> list[httpx.Response]:
    async def work(adapter: Any) -> list[httpx.Response]:
        transport = httpx.ASGITransport(adapter)
        async with httpx.AsyncClient(transport=transport, base_url=caller.process.url, auth=_auth(caller)) as client:
            return [
                await client.request(asked.method, asked.target, headers=asked.headers, content=asked.body, auth=asked.auth)
                for asked in requests
            ]

    return asyncio.run(_with_asgi(caller, work))


def _through_rsgi(caller: Caller, requests: Sequence[Asked]) -> list[httpx.Response]:
    with httpx.Client(base_url=caller.process.url, auth=_auth(caller)) as client:
        return [
            client.request(asked.method, asked.target, headers=asked.headers, content=asked.body, auth=asked.auth)
            for asked in requests
        ]


def _auth(caller: Caller) -> tuple[str, str]:
    return str(caller.credentials.shop_id), caller.credentials.secret_key


def test_both_adapters_give_the_same_answers(new_caller: Callable[[], Caller]) -> None:
    answers = []
    for through in (_through_rsgi, _through_asgi):
        caller = new_caller()
        for number in range(3):
            assert caller.create(GOOD, ("RequestID", str(number))).status == 201
        customer_id = caller.get("/customers").json()[0]["id"]
        requests = [asked._replace(target=asked.target.replace("{id}", customer_id)) for asked in AT_BOTH_ADAPTERS]
        answers.append([_without_ids(_comparable(response), caller) for response in through(caller, requests)])

    for one, other, asked in zip(*answers, AT_BOTH_ADAPTERS, strict=True):
        assert one == other, asked


def _without_ids(response: tuple[int, dict[str, str], Any], caller: Caller) -> str:
    text = repr(response)
    for number, customer in enumerate(caller.get("/customers").json()):
        text = text.replace(customer["id"], f"customer-{number}")
    return text


def test_both_adapters_send_the_same_long_list(long_list: Caller) -> None:
    (response,) = _through_asgi(long_list, [Asked("GET", "/customers")])

    assert response.content == long_list.get("/customers").body


def test_the_asgi_adapter_reads_a_body_in_several_messages(caller: Caller) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in GOOD:
            yield bytes([byte])

    (response,) = _through_asgi(caller, [Asked("POST", "/customers", {}, pieces())])

    assert response.status_code == 201


@pytest.mark.parametrize("order", [1, -1])
def test_both_adapters_use_the_same_one_of_repeated_headers(caller: Caller, order: int) -> None:
    logins = [caller.login[1], "Basic no"][::order]
    at_rsgi = caller.ask(request("GET", "/customers", *[("Authorization", login) for login in logins]))

    async def work(adapter: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(adapter), base_url=caller.process.url) as client:
            return await client.get("/customers", headers=[("authorization", login) for login in logins])

    assert asyncio.run(_with_asgi(caller, work)).status_code == at_rsgi.status
