"""A soak test: many connections, every route, random faults, and a check of all responses at the end.

``python -m support.soak --seconds 300 --engine sqlite`` runs it for longer; the tests run it for seconds. A seed
determines the requests, but not which request each fault affects.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ecomcharge.audit.audit import audit
from ecomcharge.base.clock import SystemClock
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.opening import open_database
from ecomcharge.web.rsgi import OPEN_SECONDS
from support.backups import BackupFailed, Backups, PostgresBackups, SqliteBackups
from support.builders import a_card, a_plan
from support.postgres import PostgresServer
from support.process import ServerProcess

CONNECTIONS = 32
ANSWER_TIMEOUT_SECONDS = 20.0
RETRY_PAUSE_SECONDS = 0.05
RETRY_DEADLINE_SECONDS = 60.0
QUIET = 0.2  # the fraction of the time at the end without faults
BACKUP_SECONDS = 10.0  # between two frequent backups; a short run makes four backups
THOROUGH_BACKUP_SECONDS = 60.0
SILENT_CONNECTIONS = 100  # that one fault opens
MASTER_KEY = base64.b64encode(bytes(32)).decode()
FIELDS = ("first_name", "last_name", "address", "country", "city", "zip", "state", "phone", "email", "ip", "external_id")
# The expected statuses of each kind of request. Faults may add 503, 504 and broken connections.
EXPECTED = {
    "create": {201},
    "keyed create": {201},
    "replay": {201},
    "invalid": {422},
    "read": {200},
    "read of another shop's": {404},
    "cursor page": {200},
    "numbered page": {200},
    "filter": {200},
    "everyone": {200},
    "wrong key": {401},
    "unknown route": {404},
    "unknown method": {405},
    "head": {200},
    "open": {200},
    "subscribe": {201},
}
CARDS = ("4200000000000000", "4200000000000000", "4005550000000019", "4012000000001097", "4111110000000021")
HOURLY = a_plan(5, unit="hour", title="Soak", test=True)
PASSING = {503, 504}


@dataclass(frozen=True)
class Shop:
    id: int
    key: str

    @property
    def authorization(self) -> str:
        return "Basic " + base64.b64encode(f"{self.id}:{self.key}".encode()).decode()


@dataclass(frozen=True)
class RequestedCustomer:
    """A customer that a client tries to create. Its email is unique."""

    shop: int
    body: Mapping[str, str]
    key: str | None

    @property
    def email(self) -> str:
        return self.body["email"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Ledger:
    """The record of all requests and responses, kept outside the server."""

    requested: dict[str, RequestedCustomer] = field(default_factory=dict)  # by email
    answered: dict[str, bytes] = field(default_factory=dict)  # by email: the acknowledged response body
    refused: set[str] = field(
        default_factory=set
    )  # emails of customers whose attempts were all refused, and which must not exist
    unknown: set[str] = field(default_factory=set)  # emails of creates without a key and without a response
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)  # 0: the connection broke
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[str] = field(default_factory=Counter)
    backups: Counter[str] = field(default_factory=Counter)  # number of intact backups by method
    wrong: list[str] = field(default_factory=list)

    def count(self, kind: str, status: int, seconds: float) -> None:
        self.statuses[kind, status] += 1
        self.seconds[kind].append(seconds)
        if status and status not in EXPECTED[kind] | PASSING:
            self.wrong.append(f"{kind} was answered {status}")


Listed = Mapping[int, Sequence[Mapping[str, Any]]]  # the customers that a server lists, by shop


def faults_of(ledger: Ledger, listed: Listed) -> list[str]:
    """Returns the differences between the ledger and the customers that the server lists for each shop."""
    found = list(ledger.wrong)
    for shop, customers in listed.items():
        ids = [customer["id"] for customer in customers]
        if ids != sorted(set(ids)):
            found.append(f"shop {shop}: ids do not rise")
        for customer in customers:
            found += _faults_of_customer(ledger, shop, customer)
    found += [f"shop {shop}: {email} is there {times} times" for shop, email, times in doubled_customers(listed)]
    found += [f"{email} was acknowledged and is lost" for email in lost_customers(ledger, listed)]
    there = _emails_of(listed)
    found += [f"{email} was refused and is there" for email in ledger.refused if email in there]
    return found


def lost_customers(ledger: Ledger, listed: Listed) -> list[str]:
    """Returns the emails of customers that were acknowledged and are not listed."""
    there = _emails_of(listed)
    return [email for email in ledger.answered if email not in there]


def doubled_customers(listed: Listed) -> list[tuple[int, str, int]]:
    """Returns shop, email and number of the customers that a shop has more than once."""
    return [
        (shop, email, times)
        for shop, customers in listed.items()
        for email, times in Counter(customer["email"] for customer in customers).items()
        if times > 1
    ]


def _emails_of(listed: Listed) -> set[str]:
    return {customer["email"] for customers in listed.values() for customer in customers}


def faults_of_backup(name: str, acknowledged: Iterable[str], held: Iterable[str]) -> list[str]:
    """Returns one line about customers that were acknowledged before a backup began and are missing from it."""
    missing = sorted(set(acknowledged).difference(held))
    return [f"{name} lacks {len(missing)} acknowledged customers, such as {missing[0]}"] if missing else []


def _faults_of_customer(ledger: Ledger, shop: int, customer: Mapping[str, Any]) -> list[str]:
    email = customer["email"]
    customer_request = ledger.requested.get(email)
    if customer_request is None:
        return [f"shop {shop}: {email} was never requested"]
    if customer_request.shop != shop:
        return [f"{email} of shop {customer_request.shop} is in shop {shop}"]
    expected = {name: customer_request.body.get(name) for name in FIELDS}
    if {name: customer[name] for name in FIELDS} != expected:
        return [f"{email} is not as it was asked for"]
    acknowledged = ledger.answered.get(email)
    if acknowledged is not None and json.loads(acknowledged) != customer:
        return [f"{email} is not as it was acknowledged"]
    return []


class Client:
    """One connection, which is opened again after it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, authorization: str, body: bytes = b"", **headers: str) -> Answer | None:
        """Returns the response, or ``None`` if the connection broke or timed out."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
                reader, writer = self._streams
                writer.write(_request(method, path, authorization, body, headers))
                await writer.drain()
                return await _answer(reader, method)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            self.close()
            return None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _request(method: str, path: str, authorization: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: soak", f"Authorization: {authorization}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if method == "HEAD":
        body = b""
    elif headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).strip(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return bytes(body)


class LoadedServer:
    """A server under load, its shops, and the record of all requests. The seed determines the requests."""

    def __init__(self, server: ServerProcess, shops: Sequence[Shop], seed: int, ledger: Ledger | None = None) -> None:
        self.server = server
        self.shops = shops
        self.seed = seed
        self.ledger = ledger or Ledger()

    def shop(self, id: int) -> Shop:
        return next(shop for shop in self.shops if shop.id == id)

    async def list_everything(self) -> dict[int, list[dict[str, Any]]]:
        """Returns all customers of every shop, and checks that paging by cursor returns the same list."""
        listed: dict[int, list[dict[str, Any]]] = {}
        client = Client(self.server.port)
        for shop in self.shops:
            listed[shop.id] = (await _get_with_retries(client, "/customers", shop)).json()
            walked: list[dict[str, Any]] = []
            page = None
            while page is None or len(page) == 1000:
                after = f"&after={walked[-1]['id']}" if walked else ""
                page = (await _get_with_retries(client, f"/customers?limit=1000{after}", shop)).json()
                walked += page
            if walked != listed[shop.id]:
                self.ledger.wrong.append(f"shop {shop.id}: the list and the pages by cursor differ")
        client.close()
        return listed


class Visitor:
    """Sends requests over one connection and records the responses in the ledger."""

    def __init__(self, loaded: LoadedServer, number: int) -> None:
        self._loaded = loaded
        self._ledger = loaded.ledger
        self._random = random.Random(f"{loaded.seed} {number}")
        self._client = Client(loaded.server.port)
        self._number = number
        self._count = 0
        self._mine: list[str] = []  # emails of customers that this visitor created

    async def visit(self, until: Callable[[], bool]) -> None:
        weighted_actions: list[tuple[int, Callable[[Shop], Awaitable[None]]]] = [
            (30, self.create),
            (15, self.keyed_create),
            (5, self.replay),
            (4, self.invalid),
            (25, self.read),
            (3, self.read_of_another),
            (6, self.cursor_page),
            (3, self.numbered_page),
            (3, self.filter),
            (1, self.everyone),
            (2, self.wrong_key),
            (3, self.odd_routes),
            (2, self.open_routes),
            (4, self.subscribe),
        ]
        while not until():
            doing = self._random.choices([each for _, each in weighted_actions], [weight for weight, _ in weighted_actions])[0]
            await doing(self._random.choice(self._loaded.shops))
        self._client.close()

    async def _ask(
        self, kind: str, shop: Shop, method: str, path: str, body: bytes = b"", authorization: str | None = None, **headers: str
    ) -> Answer | None:
        started = time.monotonic()
        answer = await self._client.ask(method, path, authorization or shop.authorization, body, **headers)
        self._ledger.count(kind, answer.status if answer else 0, time.monotonic() - started)
        if answer is None or answer.status in PASSING:
            await asyncio.sleep(RETRY_PAUSE_SECONDS)
        if answer is not None and answer.status >= 400 and method != "HEAD" and not answer.json().get("message"):
            self._ledger.wrong.append(f"{kind}: an error without a message: {answer}")
        if answer is not None and answer.status in PASSING and "retry-after" not in answer.headers:
            self._ledger.wrong.append(f"{kind}: {answer.status} without Retry-After")
        return answer

    def _new_customer_request(self, shop: Shop, *, keyed: bool) -> RequestedCustomer:
        self._count += 1
        email = f"s{self._loaded.seed}-{self._number}-{self._count}@shop.test"
        body = {"email": email, "ip": "127.0.0.1", "first_name": "Soak", "external_id": f"x-{self._number}-{self._count % 50}"}
        customer_request = RequestedCustomer(shop.id, body, f"key-{email}" if keyed else None)
        self._ledger.requested[email] = customer_request
        return customer_request

    def _acknowledge(self, customer_request: RequestedCustomer, answer: Answer) -> None:
        self._ledger.answered[customer_request.email] = answer.body
        self._mine.append(customer_request.email)

    async def create(self, shop: Shop) -> None:
        customer_request = self._new_customer_request(shop, keyed=False)
        answer = await self._ask("create", shop, "POST", "/customers", json.dumps(customer_request.body).encode())
        if answer is None or answer.status == 504:
            self._ledger.unknown.add(customer_request.email)
        elif answer.status == 201:
            self._acknowledge(customer_request, answer)
        else:
            self._ledger.refused.add(customer_request.email)

    async def subscribe(self, shop: Shop) -> None:
        """Charge a card that succeeds, is declined, requires 3-D Secure, or succeeds without a response."""
        if not self._mine:
            return
        email = self._random.choice(self._mine)
        owner = next(each for each in self._loaded.shops if each.id == self._ledger.requested[email].shop)
        card = a_card(self._random.choice(CARDS))
        body = {"plan": HOURLY, "customer": {"id": json.loads(self._ledger.answered[email])["id"]}, "card": card}
        await self._ask("subscribe", owner, "POST", "/subscriptions", json.dumps(body).encode())

    async def keyed_create(self, shop: Shop) -> None:
        """Repeat a create with its key until it gets a response. It must be executed exactly once."""
        customer_request = self._new_customer_request(shop, keyed=True)
        deadline = time.monotonic() + RETRY_DEADLINE_SECONDS
        answer = None
        while answer is None or answer.status != 201:
            if time.monotonic() > deadline:
                self._ledger.wrong.append(f"{customer_request.email} was not answered within a minute")
                return
            answer = await self._attempt("keyed create", shop, customer_request)
        self._acknowledge(customer_request, answer)

    async def replay(self, shop: Shop) -> None:
        keyed = [email for email in self._mine[-50:] if self._ledger.requested[email].key]
        if not keyed:
            return
        customer_request = self._ledger.requested[self._random.choice(keyed)]
        answer = await self._attempt("replay", self._loaded.shop(customer_request.shop), customer_request)
        if answer is not None and answer.status == 201:
            if answer.body != self._ledger.answered[customer_request.email]:
                self._ledger.wrong.append(f"{customer_request.email} was replayed with a different response")
            if answer.headers.get("idempotent-replayed") != "true":
                self._ledger.wrong.append(f"{customer_request.email} was executed a second time")

    async def _attempt(self, kind: str, shop: Shop, customer_request: RequestedCustomer) -> Answer | None:
        assert customer_request.key is not None
        header = {"RequestID" if len(customer_request.email) % 2 else "Idempotency_Key": customer_request.key}
        return await self._ask(kind, shop, "POST", "/customers", json.dumps(customer_request.body).encode(), **header)

    async def invalid(self, shop: Shop) -> None:
        await self._ask("invalid", shop, "POST", "/customers", b'{"email":"nonsense"}')

    async def read(self, shop: Shop) -> None:
        """Read an acknowledged customer. Every worker must return it immediately."""
        if not self._mine:
            return
        email = self._mine[-1] if self._random.random() < 0.5 else self._random.choice(self._mine)
        acknowledged, owner = self._ledger.answered[email], self._loaded.shop(self._ledger.requested[email].shop)
        answer = await self._ask("read", owner, "GET", f"/customers/{json.loads(acknowledged)['id']}")
        if answer is not None and answer.status == 200 and answer.body != acknowledged:
            self._ledger.wrong.append(f"{email} was read otherwise than it was acknowledged")

    async def read_of_another(self, shop: Shop) -> None:
        foreign = [email for email in self._mine[-50:] if self._ledger.requested[email].shop != shop.id]
        if foreign:
            id = json.loads(self._ledger.answered[foreign[0]])["id"]
            await self._ask("read of another shop's", shop, "GET", f"/customers/{id}")

    async def cursor_page(self, shop: Shop) -> None:
        after = ""
        for _ in range(3):
            answer = await self._ask("cursor page", shop, "GET", f"/customers?limit=50{after}")
            page = self._page(shop, answer)
            if len(page) < 50:
                return
            after = f"&after={page[-1]['id']}"

    async def numbered_page(self, shop: Shop) -> None:
        self._page(shop, await self._ask("numbered page", shop, "GET", "/customers?page=2&per_page=30"))

    async def filter(self, shop: Shop) -> None:
        if self._mine:
            email = self._random.choice(self._mine)
            owner = self._loaded.shop(self._ledger.requested[email].shop)
            answer = await self._ask("filter", owner, "GET", f"/customers?email={email}")
            page = self._page(owner, answer)
            if answer is not None and answer.status == 200 and [each["email"] for each in page] != [email]:
                self._ledger.wrong.append(f"the filter found {len(page)} of {email}")

    async def everyone(self, shop: Shop) -> None:
        answer = await self._ask("everyone", shop, "GET", "/customers")
        with contextlib.suppress(json.JSONDecodeError):  # truncated by a fault: it is not valid JSON
            self._page(shop, answer)

    def _page(self, shop: Shop, answer: Answer | None) -> list[dict[str, Any]]:
        """Check the order of the customers of a page, and that all belong to this shop."""
        if answer is None or answer.status != 200:
            return []
        page: list[dict[str, Any]] = answer.json()
        ids = [customer["id"] for customer in page]
        if ids != sorted(set(ids)):
            self._ledger.wrong.append("a page whose ids do not rise")
        for customer in page:
            customer_request = self._ledger.requested.get(customer["email"])
            if customer_request is None or customer_request.shop != shop.id:
                self._ledger.wrong.append(f"{customer['email']} was returned to shop {shop.id}")
        return page

    async def wrong_key(self, shop: Shop) -> None:
        await self._ask("wrong key", shop, "GET", "/customers", authorization="Basic " + base64.b64encode(b"1:nonsense").decode())

    async def odd_routes(self, shop: Shop) -> None:
        await self._ask("unknown route", shop, "GET", "/nowhere")
        await self._ask("unknown method", shop, "DELETE", "/customers")
        await self._ask("head", shop, "HEAD", "/customers?limit=1")

    async def open_routes(self, shop: Shop) -> None:
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
            await self._ask("open", shop, "GET", path)


class Soak(LoadedServer):
    """A soak run: the server, its visitors and the faults."""

    def __init__(
        self, server: ServerProcess, shops: Sequence[Shop], postgres: PostgresServer | None, backups: Backups, seed: int
    ) -> None:
        super().__init__(server, shops, seed)
        self._postgres = postgres
        self._random = random.Random(seed)
        self._samples: list[tuple[float, int]] = []  # MiB, descriptors
        self._stalled: list[asyncio.StreamWriter] = []
        self._backups = backups
        self._interruptions = 0  # of PostgreSQL: odd while it is stopped or its sessions are terminated

    async def run(self, seconds: float) -> list[str]:
        """Run for the given time. Returns the problems found."""
        ends = time.monotonic() + seconds
        visitors = [Visitor(self, number) for number in range(CONNECTIONS)]
        visits = [asyncio.create_task(visitor.visit(lambda: time.monotonic() > ends)) for visitor in visitors]
        frequent, thorough = self._backups.names
        copying = [
            asyncio.create_task(self._back_up(frequent, self._backups.frequent, min(BACKUP_SECONDS, seconds / 4), ends)),
            asyncio.create_task(self._back_up(thorough, self._backups.thorough, min(THOROUGH_BACKUP_SECONDS, seconds / 4), ends)),
        ]
        await self._inject_faults(ends - QUIET * seconds)
        while time.monotonic() < ends:
            self._samples.append(self._sample())
            await asyncio.sleep(0.5)
        await asyncio.gather(*visits, *copying)
        for writer in self._stalled:
            writer.transport.abort()
        listed = await self.list_everything()
        found = await self._leaks()
        await self.kill_server()  # so that data that exists only in memory, or in an unlinked log, is lost now
        if await self.list_everything() != listed:
            self.ledger.wrong.append("after a last kill the server lists other customers than before it")
        await self._make_backup(frequent, self._backups.frequent)
        return faults_of(self.ledger, listed) + found

    async def _back_up(self, name: str, make: Callable[[], list[str]], every_seconds: float, until: float) -> None:
        while time.monotonic() + every_seconds < until:
            await asyncio.sleep(every_seconds)
            await self._make_backup(name, make)
        if not self.ledger.backups[name]:
            self.ledger.wrong.append(f"no {name} was made")

    async def _make_backup(self, name: str, make: Callable[[], list[str]]) -> None:
        """Make a backup and check that it contains all customers acknowledged before. It is repeated after a fault."""
        deadline = time.monotonic() + RETRY_DEADLINE_SECONDS
        while True:
            acknowledged, interruptions = list(self.ledger.answered), self._interruptions
            try:
                held = await asyncio.to_thread(make)
            except BackupFailed as error:
                cut_off = interruptions % 2 or interruptions != self._interruptions
                if not cut_off or time.monotonic() > deadline:
                    self.ledger.wrong.append(f"{name} failed: {error}")
                    return
                self.ledger.faults[f"{name} cut off"] += 1
                while self._interruptions % 2:
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)
            else:
                self.ledger.backups[name] += 1
                self.ledger.wrong += faults_of_backup(name, acknowledged, held)
                return

    @contextlib.contextmanager
    def _interruption(self) -> Iterator[None]:
        self._interruptions += 1
        yield
        self._interruptions += 1

    async def _inject_faults(self, until: float) -> None:
        faults = [self.kill_worker, self.kill_server, self.restart_server, self.stall, self.disconnect_early]
        faults += [self.stop_database, self.end_sessions] if self._postgres else [self.hold_write_lock]
        waiting: list[Callable[[], Awaitable[None]]] = []
        while time.monotonic() < until:
            await asyncio.sleep(self._random.uniform(0.3, 1.2))
            waiting = waiting or self._random.sample(faults, len(faults))  # each fault once, in random order, then repeated
            fault = waiting.pop()
            self.ledger.faults[fault.__name__.replace("_", " ")] += 1
            await fault()

    async def kill_worker(self) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # a killed process no longer exists
            if workers := self.server.worker_pids():
                os.kill(self._random.choice(workers), signal.SIGKILL)

    async def kill_server(self) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def restart_server(self) -> None:
        status = await asyncio.to_thread(self.server.stop)
        if status != 0:
            self.ledger.wrong.append(f"the server stopped with {status}")
        await asyncio.to_thread(self.server.start)

    async def stop_database(self) -> None:
        assert self._postgres is not None
        with self._interruption():
            await asyncio.to_thread(self._postgres.stop, signal.SIGQUIT)
            await asyncio.sleep(self._random.uniform(0.1, 0.8))
            await asyncio.to_thread(self._postgres.start)

    async def end_sessions(self) -> None:
        assert self._postgres is not None
        sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
        with self._interruption(), contextlib.suppress(Exception):
            await asyncio.to_thread(self._postgres.client, "psql", "postgres", "-c", sql)

    async def hold_write_lock(self) -> None:
        path = self.server.database.removeprefix("sqlite:///")
        code = f"import apsw, time; c = apsw.Connection({path!r}); c.set_busy_timeout(5000); c.execute('BEGIN IMMEDIATE'); "
        holder = await asyncio.create_subprocess_exec(sys.executable, "-c", code + "time.sleep(1)")
        await holder.wait()

    async def stall(self) -> None:
        """Run clients that connect and send nothing, send half a body, or request a list without reading it."""
        shop = self.shops[0]
        for text in (
            *[b""] * SILENT_CONNECTIONS,
            _request("POST", "/customers", shop.authorization, b'{"email"', {})[:-3],
            b"GET /custo",
        ):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
                writer.write(text)
                self._stalled.append(writer)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, limit=1024)
            writer.write(_request("GET", "/customers", shop.authorization, b"", {}))
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            self._stalled.append(writer)

    async def disconnect_early(self) -> None:
        for _ in range(5):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
                writer.write(_request("GET", "/customers", self.shops[1].authorization, b"", {}))
                await asyncio.sleep(0.005)
                writer.transport.abort()

    def _sample(self) -> tuple[float, int]:
        assert self.server.process is not None
        parent = psutil.Process(self.server.process.pid)
        memory, descriptors = 0.0, 0
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory += process.memory_info().rss / 2**20
                descriptors += process.num_fds()
        return memory, descriptors

    async def _leaks(self) -> list[str]:
        """Check that open descriptors return to the idle level and memory stays bounded."""
        for _ in range(1 + round(OPEN_SECONDS)):  # the server keeps the files of long lists open for so long
            await asyncio.sleep(1)
            memory, descriptors = self._sample()
            if descriptors <= 200:
                break
        self._samples.append((memory, descriptors))
        found = []
        if descriptors > 200:
            found.append(f"{descriptors} descriptors are open without clients")
        highest = max(memory for memory, _ in self._samples)
        if highest > 150 * (1 + len(self.server.worker_pids())) + 100:
            found.append(f"the server's processes took {highest:.0f} MiB")
        return found

    def summary(self) -> str:
        ledger = self.ledger
        lines = [
            f"seed {self.seed}: {sum(ledger.statuses.values()):,} requests, {len(ledger.answered):,} creates acknowledged,"
            f" {len(ledger.refused):,} refused, {len(ledger.unknown):,} of unknown outcome without a key",
            "faults: " + ", ".join(f"{count} x {name}" for name, count in sorted(ledger.faults.items())),
            "intact backups: " + ", ".join(f"{count} x {name}" for name, count in sorted(ledger.backups.items())),
        ]
        for kind, seconds in sorted(ledger.seconds.items()):
            statuses = {status or "broken": count for (each, status), count in sorted(ledger.statuses.items()) if each == kind}
            counts = ", ".join(f"{status}: {count}" for status, count in statuses.items())
            p50, p99 = statistics.median(seconds), sorted(seconds)[int(len(seconds) * 0.99)]
            times = f"p50 {p50 * 1000:.1f}, p99 {p99 * 1000:.1f}, longest {max(seconds) * 1000:.0f} ms"
            lines.append(f"  {kind:24} {counts:50} {times}")
        (first, _), (last, descriptors) = self._samples[0], self._samples[-1]
        lines.append(f"memory {first:.0f} MiB at the beginning of the quiet, {last:.0f} at the end; {descriptors} descriptors")
        return "\n".join(lines)


async def _get_with_retries(client: Client, path: str, shop: Shop) -> Answer:
    for _ in range(100):
        answer = await client.ask("GET", path, shop.authorization)
        if answer is not None and answer.status == 200:
            return answer
        await asyncio.sleep(0.2)
    raise AssertionError(f"the server does not answer {path}")


def soak(
    server: ServerProcess, shops: Sequence[Shop], postgres: PostgresServer | None, seconds: float, seed: int
) -> tuple[list[str], str]:
    """Run a soak test. Returns the problems found and the summary."""
    folder = server.log_file.parent
    backups: Backups = (
        PostgresBackups(postgres, server.database.rpartition("/")[2], folder)
        if postgres
        else SqliteBackups(Path(server.database.removeprefix("sqlite:///")), folder)
    )
    run = Soak(server, shops, postgres, backups, seed)
    found = asyncio.run(run.run(seconds))
    return [*found, *asyncio.run(audited(server.database))], run.summary()


async def audited(url: str) -> list[str]:
    """Returns the findings of an audit of all shops while the server runs."""
    database = await open_database(url)
    try:
        gateways = GatewayRegistry(database, MasterKey(bytes(32)), "http://127.0.0.1", sandbox_mode=True)
        try:
            return [f"audit: {found.kind}: {found.message}" for found in await audit(database, gateways, SystemClock())]
        finally:
            await gateways.close()
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="for each engine")
    parser.add_argument("--engine", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    engines = ("sqlite", "postgres") if options.engine == "both" else (options.engine,)
    balanced = True
    for engine in engines:
        found, summary = _alone(engine, options.seconds, options.workers, options.seed)
        balanced = balanced and not found
        print(f"{engine}, {summary}\n" + ("\n".join(found[:50]) or "no problem was found") + "\n", flush=True)
    sys.exit(0 if balanced else 1)


def _alone(engine: str, seconds: float, workers: int, seed: int) -> tuple[list[str], str]:
    from ecomcharge.shops.keys import load_master_key
    from support.shops import add_shop

    with (
        PostgresServer() if engine == "postgres" else contextlib.nullcontext() as postgres,
        tempfile.TemporaryDirectory(prefix="ecomcharge-soak-") as folder,
    ):
        url = postgres.create_database("soak") if postgres else f"sqlite:///{folder}/soak.db"
        master_key = load_master_key(MASTER_KEY, None, database_file=None)
        shops = [Shop(made.shop_id, made.secret_key) for made in (add_shop(url, master_key) for _ in range(3))]
        options = ("--workers", str(workers), "--failed-logins-per-minute", "0")
        with ServerProcess(url, Path(folder), *options, environment={"ECOMCHARGE_MASTER_KEY": MASTER_KEY}) as server:
            return soak(server, shops, postgres, seconds, seed)


if __name__ == "__main__":
    main()
