"""A client for one shop on a server with low limits, which sends raw requests."""

from __future__ import annotations

import json
from typing import Any

import httpx

from ecomcharge.shops.model import Credentials
from support.builders import a_customer
from support.process import ServerProcess
from support.wire import Answer, Wire, basic, request

BODY_LIMIT = 4096
STALL_SECONDS = 2
MANY = 3000
JSON = ("Content-Type", "application/json")
JOHN = a_customer()
GOOD = json.dumps(JOHN).encode()


class Caller:
    """Sends raw requests of one shop to a server with low limits."""

    def __init__(self, process: ServerProcess, credentials: Credentials) -> None:
        self.process = process
        self.credentials = credentials
        self.login = ("Authorization", basic(credentials.shop_id, credentials.secret_key))

    def connect(self, **options: Any) -> Wire:
        return Wire(self.process.port, **options)

    def ask(self, raw: bytes) -> Answer:
        with self.connect() as wire:
            wire.send(raw)
            return wire.answer(to_head=raw.startswith(b"HEAD"))

    def get(self, target: str, *headers: tuple[str, str | bytes]) -> Answer:
        return self.ask(request("GET", target, self.login, *headers))

    def create(self, body: bytes, *headers: tuple[str, str | bytes]) -> Answer:
        return self.ask(request("POST", "/customers", self.login, JSON, *headers, body=body))

    def customers(self) -> int:
        return len(self.get("/customers").json())


def assert_is_our_error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.header("content-type") == "application/json; charset=utf-8"
    assert answer.header("x-request-id")
    assert isinstance(answer.json(), dict)
    assert answer.json()["message"]


def encoded_login(user_and_key: bytes) -> bytes:
    return b"Basic " + httpx.BasicAuth(b"", user_and_key)._auth_header.encode()[6:]
