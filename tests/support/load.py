"""Run many clients that create customers, and record the response to each create in a ledger."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

ANSWER_TIMEOUT_SECONDS = 30.0
OUTCOME_UNKNOWN = "The outcome of this request is not known"
_names = itertools.count(1)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # header names in lower case
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Line:
    """One persistent connection to 127.0.0.1 with a shop's credentials. It uses less memory than a full client."""

    def __init__(self, url: str, shop_id: int, secret_key: str) -> None:
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1"
        assert address.port is not None
        self._connection = HTTPConnection(address.hostname, address.port, timeout=ANSWER_TIMEOUT_SECONDS)
        credentials = base64.b64encode(f"{shop_id}:{secret_key}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """Raises ``OSError`` or ``HTTPException`` when the connection breaks; the next request opens a new one."""
        started = time.monotonic()
        try:
            sent = None if body is None else json.dumps(body)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            self._connection.request(method, path, sent, self._headers | named)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            self._connection.close()
            raise
        received = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, received, content, time.monotonic() - started)

    def create(self, body: object, key: str | None = None) -> Reply:
        return self.ask("POST", "/customers", body, **({"Idempotency_Key": key} if key else {}))

    def customers(self, query: str = "") -> list[dict[str, Any]]:
        reply = self.ask("GET", f"/customers{query}")
        assert reply.status == 200, reply
        found: list[dict[str, Any]] = reply.json()
        return found

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class RequestedCustomer:
    """A customer that a client tries to create. Its email is unique."""

    email: str
    key: str | None

    @property
    def body(self) -> dict[str, str]:
        return {"email": self.email, "external_id": self.email.partition("@")[0], "ip": "127.0.0.1", "first_name": "Load"}


@dataclass
class Ledger:
    acknowledged: dict[str, str] = field(default_factory=dict)  # email -> id
    refused: list[RequestedCustomer] = field(default_factory=list)  # 503: the server wrote nothing
    unknown: list[RequestedCustomer] = field(
        default_factory=list
    )  # the connection broke, or the server reported an unknown outcome
    unexpected: list[Reply] = field(default_factory=list)  # any other response, which is an error
    bare_refusals: list[Reply] = field(default_factory=list)  # 503 without Retry-After or a JSON body
    slowest_seconds: float = 0.0

    def enter(self, customer_request: RequestedCustomer, reply: Reply | None) -> None:
        if reply is not None:
            self.slowest_seconds = max(self.slowest_seconds, reply.seconds)
        if reply is None or (reply.status == 504 and OUTCOME_UNKNOWN.encode() in reply.body):
            self.unknown.append(customer_request)
        elif reply.status == 201:
            self.acknowledged[customer_request.email] = reply.json()["id"]
        elif reply.status == 503:
            self.refused.append(customer_request)
            if not is_plain_refusal(reply):
                self.bare_refusals.append(reply)
        else:
            self.unexpected.append(reply)

    def add(self, other: Ledger) -> None:
        self.acknowledged |= other.acknowledged
        self.refused += other.refused
        self.unknown += other.unknown
        self.unexpected += other.unexpected
        self.bare_refusals += other.bare_refusals
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)

    def check(self, customers: Sequence[Mapping[str, Any]]) -> None:
        """Check that every acknowledged customer exists, no refused one exists, and none exists twice."""
        assert self.unexpected == [], f"{len(self.unexpected)} unexpected responses, the first {self.unexpected[0]}"
        assert self.bare_refusals == [], self.bare_refusals[0]
        found = {customer["email"]: customer["id"] for customer in customers}
        twice = [email for email, times in Counter(customer["email"] for customer in customers).items() if times > 1]
        assert twice == [], f"{len(twice)} customers are there more than once"
        lost = [email for email, id in self.acknowledged.items() if found.get(email) != id]
        assert lost == [], f"{len(lost)} of {len(self.acknowledged)} acknowledged customers are lost"
        written = [customer_request.email for customer_request in self.refused if customer_request.email in found]
        assert written == [], f"{len(written)} of {len(self.refused)} refused customers were written"

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, {len(self.unknown)} unknown,"
            f" slowest {self.slowest_seconds:.2f} s"
        )


def is_plain_refusal(reply: Reply) -> bool:
    """Returns whether a 503 has a Retry-After header and a JSON body."""
    try:
        message = reply.json()["message"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(message) and reply.headers.get("retry-after", "").isdecimal()


class Load:
    """Creates customers until it is stopped, has sent ``most`` requests, or ``most_seconds`` are over.

    Every second customer has an Idempotency-Key. The connections are spread evenly over ``urls``. After a
    refusal or a broken connection a client waits briefly before the next customer.
    """

    def __init__(
        self,
        urls: Sequence[str],
        shop_id: int,
        secret_key: str,
        *,
        connections: int = 8,
        most: int = 20_000,
        most_seconds: float = 60.0,
    ) -> None:
        self.ledger = Ledger()
        self._name = f"load-{next(_names)}"
        self._numbers = itertools.count(1)
        self._most = most
        self._deadline = time.monotonic() + most_seconds
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        lines = [Line(urls[number % len(urls)], shop_id, secret_key) for number in range(connections)]
        self._threads = [threading.Thread(target=self._work, args=(line,), daemon=True) for line in lines]

    def _new_customer_request(self) -> RequestedCustomer | None:
        number = next(self._numbers)
        if number > self._most or time.monotonic() > self._deadline:
            return None
        return RequestedCustomer(f"{self._name}-{number}@shop.test", f"{self._name}-key-{number}" if number % 2 else None)

    def _work(self, line: Line) -> None:
        while not self._stopped.is_set() and (customer_request := self._new_customer_request()) is not None:
            reply = None
            with suppress(OSError, HTTPException):
                reply = line.create(customer_request.body, customer_request.key)
            with self._lock:
                self.ledger.enter(customer_request, reply)
            if reply is None or reply.status != 201:
                self._stopped.wait(0.05)
        line.close()

    def stop(self) -> Ledger:
        """Let every client finish its current request. Returns the ledger."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(ANSWER_TIMEOUT_SECONDS + 5)
        return self.ledger

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def read_all(url: str, shop_id: int, secret_key: str, ids: Sequence[str], *, connections: int = 4) -> list[Reply]:
    """Read customers by their ids, a few concurrently. Returns the replies in the order of the ids."""
    parts = [ids[number::connections] for number in range(connections)]

    def read(part: Sequence[str]) -> list[Reply]:
        with Line(url, shop_id, secret_key) as line:
            return [line.ask("GET", f"/customers/{id}") for id in part]

    replies: list[Reply | None] = [None] * len(ids)
    with ThreadPoolExecutor(connections) as pool:
        for number, found in enumerate(pool.map(read, parts)):
            replies[number::connections] = found
    return [reply for reply in replies if reply is not None]
