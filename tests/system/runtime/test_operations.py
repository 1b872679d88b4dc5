"""What an operator relies on: stopping, crashing, keys, limits, health, numbers, logs and error messages."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ecomcharge.customers import store
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from support.postgres import PostgresServer, free_port
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Start, add_shop, with_database
from support.waiting import eventually
from support.wire import Wire, basic, head

JOHN = {"email": "john@example.com", "ip": "127.0.0.1"}
GOOD = json.dumps(JOHN).encode()
FELT_SECONDS = 5.0  # a change of keys is felt everywhere within this


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two workers that several tests share; each has its own shops."""
    folder = tmp_path_factory.mktemp("pair")
    options = ("--workers", "2", "--failed-logins-per-minute", "0")
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *options, environment=ENVIRONMENT) as process:
        assert eventually(lambda: len(process.worker_pids()) == 2, 10)
        yield process


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with low limits, behind proxies; each test speaks from addresses of its own."""
    folder = tmp_path_factory.mktemp("limited")
    options = ("--failed-logins-per-minute", "2", "--requests-per-second", "5", "--trusted-proxies", "127.0.0.0/8, 10.0.0.1")
    with ServerProcess(f"sqlite:///{folder}/test.db", folder, *options, environment=ENVIRONMENT) as process:
        yield process


def auth(shop: Credentials) -> tuple[str, str]:
    return str(shop.shop_id), shop.secret_key


def get(process: ServerProcess, path: str, shop: Credentials | tuple[str, str] | None = None, **headers: str) -> httpx.Response:
    """On a connection of its own."""
    return httpx.get(
        process.url + path,
        auth=auth(shop) if isinstance(shop, Credentials) else shop,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        verify=False,  # it is plain HTTP, and reading the machine's certificates takes longer than the request
    )


def command(
    *arguments: str, environment: dict[str, str] | None = None, timeout_seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """``ecomcharge`` as another process, run to its end."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}
    return subprocess.run(
        [sys.executable, "-m", "ecomcharge", *arguments],
        env=cleared | (ENVIRONMENT if environment is None else environment),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Stopping and crashing


def stored_ids(url: str, shop: Credentials) -> list[str]:
    async def work(database: Database) -> list[str]:
        return [customer.id for customer in await store.Customers(database, shop.shop_id).after("", 1_000_000)]

    return with_database(url, work)


def test_a_request_in_progress_at_sigterm_is_answered_and_idle_connections_hold_nothing_up(
    start: Start, master_key: MasterKey
) -> None:
    process = start()
    shop = add_shop(process.database, master_key)
    with Wire(process.port) as wire, Wire(process.port), httpx.Client(base_url=process.url) as kept:
        kept.get("/healthz")
        framing = (("Content-Type", "application/json"), ("Content-Length", str(len(GOOD))))
        wire.send(head("POST", "/customers", ("Authorization", basic(*auth(shop))), *framing) + GOOD[:9])
        time.sleep(0.3)
        process.terminate()
        time.sleep(0.5)
        wire.send(GOOD[9:])
        answer = wire.answer()
        answered_at = time.monotonic()
        assert process.wait(10) == 0

    assert answer.status == 201
    assert time.monotonic() - answered_at < 5
    assert not listens(process.port)
    assert stored_ids(process.database, shop) == [answer.json()["id"]]


def test_every_acknowledged_create_outlives_sigterm_under_load(start: Start, database_url: str, master_key: MasterKey) -> None:
    process = start("--workers", "2", database=database_url)
    shop = add_shop(database_url, master_key)
    acknowledged: list[str] = []
    strange: list[int] = []

    def create_until_it_ends() -> None:
        with httpx.Client(base_url=process.url, auth=auth(shop), timeout=20) as client:
            while True:
                try:
                    response = client.post("/customers", json=JOHN)
                except httpx.TransportError:
                    return
                if response.status_code == 201:
                    acknowledged.append(response.json()["id"])
                else:
                    strange.append(response.status_code)

    threads = [threading.Thread(target=create_until_it_ends) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: len(acknowledged) > 200, 20)
    began = time.monotonic()
    assert process.stop() == 0
    ended_after_seconds = time.monotonic() - began
    for thread in threads:
        thread.join(20)

    assert strange == []
    assert ended_after_seconds < 10
    assert not listens(process.port)
    stored = stored_ids(database_url, shop)
    assert set(acknowledged) <= set(stored)
    assert len(stored) - len(acknowledged) <= len(threads)  # at most the one of each client that got no answer


def test_a_killed_worker_is_replaced_and_its_numbers_are_kept(start: Start, master_key: MasterKey) -> None:
    process = start("--workers", "2")
    shop = add_shop(process.database, master_key)
    for _ in range(20):
        assert get(process, "/customers", shop).status_code == 200
    assert eventually(lambda: counted(process) == 20, 3)
    killed, other = process.worker_pids()

    os.kill(killed, signal.SIGKILL)

    assert eventually(lambda: len(set(process.worker_pids()) - {killed}) == 2, 10)
    assert other in process.worker_pids()
    assert eventually(lambda: all(answers(process, shop) for _ in range(10)), 10)
    assert counted(process) >= 20
    assert process.stop() == 0


def answers(process: ServerProcess, shop: Credentials) -> bool:
    try:
        return get(process, "/customers", shop).status_code == 200
    except httpx.TransportError:
        return False


def test_no_worker_outlives_its_killed_supervisor(start: Start) -> None:
    process = start("--workers", "2")
    assert process.process is not None
    time.sleep(1)  # until the second worker answers too
    workers = process.worker_pids()
    assert len(workers) == 2

    os.kill(process.process.pid, signal.SIGKILL)

    assert eventually(lambda: not any(is_alive(pid) for pid in workers), 5)
    assert not listens(process.port)


def test_no_worker_outlives_a_supervisor_that_is_killed_while_they_start(tmp_path: Path) -> None:
    process = ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, environment=ENVIRONMENT)

    def begin() -> None:
        with contextlib.suppress(RuntimeError):  # it will not get far
            process.start()

    starting = threading.Thread(target=begin)
    starting.start()
    try:
        assert eventually(lambda: process.process is not None and len(process.worker_pids()) == 1, 20)
        assert process.process is not None
        (worker,) = process.worker_pids()

        os.kill(process.process.pid, signal.SIGKILL)

        assert eventually(lambda: not is_alive(worker), 5)
        assert not listens(process.port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        starting.join()


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


class TlsServer(ServerProcess):
    trust: ssl.SSLContext

    def answers(self) -> bool:
        self.url = self.url.replace("http://", "https://")
        try:
            return httpx.get(f"{self.url}/healthz", verify=self.trust).status_code == 200
        except httpx.TransportError:
            return False


def test_with_a_certificate_and_its_key_the_server_speaks_https(
    certificate: tuple[Path, Path], tmp_path: Path, master_key: MasterKey
) -> None:
    certificate_file, key_file = certificate
    options = ("--tls-certificate", str(certificate_file), "--tls-key", str(key_file))
    server = TlsServer(f"sqlite:///{tmp_path}/test.db", tmp_path, *options, environment=ENVIRONMENT)
    server.trust = ssl.create_default_context(cafile=str(certificate_file))
    with server as process:
        shop = add_shop(process.database, master_key)
        created = httpx.post(f"{process.url}/customers", json=JOHN, auth=auth(shop), verify=server.trust)
        with socket.create_connection(("127.0.0.1", process.port)) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP/1.1 200")
        old = ssl.create_default_context(cafile=str(certificate_file))
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{process.url}/healthz", verify=old)

    assert created.status_code == 201


# Limits


def test_an_address_that_fails_to_log_in_too_often_gets_429_while_right_credentials_pass(
    limited: ServerProcess, master_key: MasterKey
) -> None:
    shop = add_shop(limited.database, master_key)
    here = {"x_forwarded_for": "198.51.100.1"}

    statuses = [get(limited, "/customers", ("1", f"wrong-{number}"), **here).status_code for number in range(2)]
    refused = get(limited, "/customers", ("1", "wrong-again"), **here)

    assert statuses == [401] * 2
    assert refused.status_code == 429
    assert refused.json() == {"message": "Too many requests"}
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"failed-logins";q=2;w=60'
    assert refused.headers["ratelimit"] == f'"failed-logins";r=0;t={refused.headers["retry-after"]}'
    assert get(limited, "/customers", shop, **here).status_code == 200


def test_sixty_failed_logins_a_minute_are_borne_by_default_whatever_x_forwarded_for_says(start: Start) -> None:
    process = start()
    with httpx.Client(base_url=process.url, auth=("1", "wrong-key")) as client:
        statuses = [client.get("/customers", headers={"x-forwarded-for": f"192.0.2.{n}"}).status_code for n in range(61)]

    assert statuses == [401] * 60 + [429]


def test_requests_without_credentials_count_for_nothing(limited: ServerProcess) -> None:
    assert {get(limited, "/customers", x_forwarded_for="198.51.100.2").status_code for _ in range(5)} == {401}


def test_x_forwarded_for_is_believed_from_trusted_proxies(limited: ServerProcess) -> None:
    def fail(forwarded: str) -> int:
        return get(limited, "/customers", ("1", "wrong-key"), x_forwarded_for=forwarded).status_code

    assert [fail("192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert fail("192.0.2.2") == 401
    assert fail("192.0.2.7, 192.0.2.1") == 429  # what stands left of the nearest address may be invented
    assert fail("192.0.2.1, 10.0.0.1") == 429  # a second trusted proxy is stepped over
    assert fail("192.0.2.1, 192.0.2.3") == 401
    assert [fail(f"2001:db8:0:1::{number}") for number in range(3)] == [401, 401, 429]  # of IPv6 the /64
    assert fail("2001:db8:0:2::1") == 401
    assert [fail("not an address") for _ in range(2)] == [401, 401]


def test_the_line_of_x_forwarded_for_that_the_proxy_added_is_the_one_believed(limited: ServerProcess) -> None:
    """Some proxies add a line of their own below the client's, which may be forged."""

    def fail(forged: str) -> int:
        lines = [("x-forwarded-for", forged), ("x-forwarded-for", "198.51.100.3")]
        return httpx.get(f"{limited.url}/customers", auth=("1", "wrong-key"), headers=lines, verify=False).status_code

    assert [fail(f"192.0.2.{number}") for number in range(101, 104)] == [401, 401, 429]


def test_a_shop_that_asks_too_fast_gets_429_and_another_is_unaffected(limited: ServerProcess, master_key: MasterKey) -> None:
    busy, calm = add_shop(limited.database, master_key), add_shop(limited.database, master_key)
    with httpx.Client(base_url=limited.url, auth=auth(busy)) as client:
        responses = [client.get("/customers") for _ in range(20)]
    refused = next(response for response in responses if response.status_code != 200)

    assert [response.status_code for response in responses][:5] == [200] * 5
    assert refused.status_code == 429
    assert refused.json() == {"message": "Too many requests"}
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == '"shop";q=5;w=1'
    assert refused.headers["ratelimit"] == '"shop";r=0;t=1'
    assert get(limited, "/customers", calm).status_code == 200
    time.sleep(1.0)
    assert get(limited, "/customers", busy).status_code == 200


# Keys, changed by commands of another process while a server of two workers runs


@dataclass(frozen=True)
class Sample:
    """What several credentials got from both workers. Seconds are counted from the end of the commands."""

    began: float
    ended: float
    statuses: dict[str, set[int]]


@dataclass(frozen=True)
class Watched:
    commands_began: float
    samples: list[Sample]

    def of(self, who: str, *, since: float = 0, until: float = 1e9) -> list[set[int]]:
        found = [sample.statuses[who] for sample in self.samples if since <= sample.began and sample.ended <= until]
        assert found
        return found


OVERLAP_SECONDS = 15  # longer than the commands take that begin with it


@pytest.fixture(scope="module")
def watched(pair: ServerProcess, master_key: MasterKey) -> Watched:
    rotated, overlapped, closed, other = (add_shop(pair.database, master_key) for _ in range(4))
    watching = {"rotated": rotated, "overlapped": overlapped, "closed": closed, "other": other}

    def sample() -> dict[str, set[int]]:
        return {who: {get(pair, "/customers", shop).status_code for _ in range(8)} for who, shop in watching.items()}

    assert all(statuses == {200} for statuses in sample().values())
    commands = [
        ("rotate-key", str(rotated.shop_id), "--json"),
        ("rotate-key", str(overlapped.shop_id), "--json", "--overlap", str(OVERLAP_SECONDS)),
        ("close", str(closed.shop_id)),
    ]
    began_at = time.monotonic()
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda words: command("shops", *words, "--database", pair.database), commands))
    ended_at = time.monotonic()
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 3
    assert done[2].stdout == f"shop {closed.shop_id} is closed; every server knows within five seconds\n"
    watching["rotated, new key"] = Credentials(**json.loads(done[0].stdout))
    watching["overlapped, new key"] = Credentials(**json.loads(done[1].stdout))

    def seconds() -> float:
        return time.monotonic() - ended_at

    samples = []
    while (began := seconds()) < OVERLAP_SECONDS + FELT_SECONDS + 2:
        statuses = sample()
        samples.append(Sample(began, seconds(), statuses))
        time.sleep(0.1)
    return Watched(began_at - ended_at, samples)


def test_a_rotated_key_is_felt_within_five_seconds(watched: Watched) -> None:
    assert all(statuses == {401} for statuses in watched.of("rotated", since=FELT_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("rotated, new key", since=FELT_SECONDS))


def test_an_old_key_stays_good_during_the_overlap_and_not_after(watched: Watched) -> None:
    certainly_good_until = watched.commands_began + OVERLAP_SECONDS
    assert all(statuses == {200} for statuses in watched.of("overlapped", until=certainly_good_until))
    assert all(statuses == {401} for statuses in watched.of("overlapped", since=OVERLAP_SECONDS + FELT_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("overlapped, new key", since=FELT_SECONDS))


def test_a_closed_shop_is_felt_within_five_seconds_and_others_never(watched: Watched) -> None:
    assert all(statuses == {401} for statuses in watched.of("closed", since=FELT_SECONDS))
    assert all(statuses == {200} for statuses in watched.of("other"))


# Health and numbers


def test_readiness_follows_the_database_and_health_does_not(start: Start, master_key: MasterKey) -> None:
    postgres = PostgresServer()
    try:
        postgres.start()
        process = start(database=postgres.create_database("ready"))
        shop = add_shop(process.database, master_key)
        assert (get(process, "/readyz").status_code, get(process, "/readyz").json()) == (200, {"status": "ready"})

        postgres.stop()

        assert eventually(lambda: get(process, "/readyz").status_code == 503, 5)
        for path, login in (("/readyz", None), ("/customers", shop)):
            unready = get(process, path, login)
            assert unready.status_code == 503
            assert unready.json() == {"message": "Service is temporarily unavailable"}
            assert int(unready.headers["retry-after"]) >= 1
        assert (get(process, "/healthz").status_code, get(process, "/healthz").json()) == (200, {"status": "ok"})

        postgres.start()

        assert eventually(lambda: get(process, "/readyz").status_code == 200, 10)
        assert eventually(lambda: get(process, "/customers", shop).status_code == 200, 10)
    finally:
        postgres.remove()


def counted(process: ServerProcess, route: str = "/customers", method: str = "GET", status: int = 200) -> int:
    """How many requests of a kind ``/metrics`` has counted."""
    text = get(process, "/metrics").text
    labels = {f'route="{route}"', f'method="{method}"', f'status="{status}"'}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name == "ecomcharge_request_duration_seconds_count" and labels == set(rest.rpartition("}")[0].split(",")):
            return int(float(rest.rpartition(" ")[2]))
    return 0


def test_metrics_add_up_over_the_workers(pair: ServerProcess, master_key: MasterKey) -> None:
    shop = add_shop(pair.database, master_key)
    kinds = [("/customers", "GET", 200), ("/customers", "POST", 422), ("/customers/{}", "GET", 404), ("-", "GET", 404)]
    before = [counted(pair, *kind) for kind in kinds]

    def grown() -> list[int]:
        return [counted(pair, *kind) - earlier for kind, earlier in zip(kinds, before, strict=True)]

    for _ in range(40):
        get(pair, "/customers", shop)
    for _ in range(7):
        httpx.post(f"{pair.url}/customers", json={}, auth=auth(shop), verify=False)
        get(pair, "/customers/cst_0000000000000000", shop)
        get(pair, "/nope/some/where")

    assert eventually(lambda: grown() == [40, 7, 7, 7], 3)
    assert [grown() for _ in range(6)] == [[40, 7, 7, 7]] * 6
    assert get(pair, "/metrics").headers["content-type"].startswith("text/plain")
    assert "cst_" not in get(pair, "/metrics").text


# Logs


def test_there_is_one_json_line_for_each_request(pair: ServerProcess, master_key: MasterKey) -> None:
    process = pair
    shop = add_shop(process.database, master_key)
    asked: dict[str, tuple[str, str, str, int, int]] = {}
    with httpx.Client(base_url=process.url) as client:
        for number, (method, path, route, login, status) in enumerate(
            [
                ("POST", "/customers", "/customers", auth(shop), 201),
                ("POST", "/customers", "/customers", None, 401),
                ("GET", "/customers?email=jane%40example.com", "/customers", auth(shop), 200),
                ("GET", "/customers/cst_0123456789abcdef", "/customers/{}", auth(shop), 404),
                ("DELETE", "/customers", "-", auth(shop), 405),
                ("GET", "/secret/path", "-", None, 404),
                ("HEAD", "/healthz", "/healthz", None, 200),
                ("BREW", "/customers", "-", None, 405),
            ]
        ):
            body = GOOD if method == "POST" else None
            headers = {"x-request-id": f"request-{number}"}
            assert client.request(method, path, auth=login, content=body, headers=headers).status_code == status
            shop_id = shop.shop_id if login and status not in (401, 405) else 0
            asked[f"request-{number}"] = (method if method != "BREW" else "OTHER", route, "info", status, shop_id)

    def lines() -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in process.log().splitlines()]
        return [line for line in parsed if line.get("request_id") in asked]

    assert eventually(lambda: len(lines()) >= len(asked), 3)
    time.sleep(0.3)
    logged = lines()
    assert len(logged) == len(asked)
    for line in logged:
        method, route, level, status, shop_id = asked[line["request_id"]]
        assert (line["method"], line["status"], line["event"]) == (method, status, "request")
        assert line["level"] == level
        assert line["route"] == route or status == 405
        assert line.get("shop", 0) == shop_id
        assert 0 < line["ms"] < 5000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_logs_hold_no_secret_and_nothing_of_a_customer(pair: ServerProcess, master_key: MasterKey) -> None:
    process = pair
    shop = add_shop(process.database, master_key)
    customer = {
        "first_name": "Zacharias",
        "email": "zacharias@private.example",
        "phone": "+15550001234",
        "ip": "203.0.113.77",
        "address": "Hidden Lane 7",
        "external_id": "ext-9876",
    }
    key = {"Idempotency-Key": "attempt-424242"}
    with httpx.Client(base_url=process.url, auth=auth(shop)) as client:
        created = client.post("/customers", json=customer, headers=key).json()
        client.post("/customers", json=customer, headers=key)
        client.post("/customers", json={**customer, "phone": "+15550009999"}, headers=key)
        client.post("/customers", json={**customer, "ip": "zacharias", "country": "US", "zip": "Hidden Lane"})
        client.post("/customers", content=json.dumps(customer)[:-3].encode())
        client.post("/customers", content=b'{"email":"zacharias@private.example\xff"}')
        client.post(
            "/customers", content=json.dumps(customer)[:-1] + ',"x":1e400}', headers={"Idempotency-Key": "attempt-424243"}
        )
        client.post("/customers", data=customer)
        client.get("/customers", params={"email": "zacharias@private.example", "external_id": "ext-9876"})
        client.get("/customers", params={"limit": "zacharias"})
        client.get(f"/customers/{created['id']}")
        client.get("/zacharias@private.example")
        client.get("/customers", auth=(str(shop.shop_id), "wrong-key-zacharias"))
        client.get("/customers", headers={"Authorization": "Bearer zacharias-token"}, auth=None)
        client.get("/healthz", headers={"X-Request-Id": "the-last-one"})
    assert eventually(lambda: "the-last-one" in process.log(), 3)
    log = process.log()

    assert f'"shop":{shop.shop_id}' in log
    secrets = [shop.secret_key, basic(*auth(shop)), basic(*auth(shop))[6:], ENVIRONMENT["ECOMCHARGE_MASTER_KEY"]]
    secrets += [basic(str(shop.shop_id), "wrong-key-zacharias")[6:], "attempt-4242", created["id"]]
    for text in [*secrets, *customer.values(), "zacharias", "Hidden Lane", "Authorization", "Basic "]:
        assert text.lower() not in log.lower(), text


# First steps


def test_a_sandbox_prints_a_curl_command_that_works_and_its_key_only_once(start: Start) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    process = start("--sandbox")
    printed = process.log()
    curl = printed[printed.index("\ncurl ") :].partition("\n\n")[0]

    done = subprocess.run(["sh", "-c", curl], capture_output=True, text=True, timeout=30, check=False)

    assert json.loads(done.stdout)["email"] == "customer@example.com"
    assert process.url in printed
    secret_key = re.search(r"secret key: (\S+)", printed)
    assert secret_key is not None
    assert get(process, "/customers", ("1", secret_key[1])).json()[0]["first_name"] == "John"
    assert process.stop() == 0

    again = start("--sandbox")
    assert secret_key[1] not in again.log()
    assert "eck_" not in again.log()
    assert get(again, "/customers", ("1", secret_key[1])).status_code == 200
    way_out = re.search(r"ecomcharge (shops rotate-key .*)", again.log())
    assert way_out is not None
    assert "secret key: eck_" in command(*way_out[1].split()).stdout


def test_a_sqlite_server_makes_its_own_master_key_which_others_cannot_read(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/new/folder/test.db"

    done = command("shops", "create", "--name", "Test", "--database", database, environment={})

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new/folder/test.db.master-key").stat().st_mode & 0o777 == 0o600


# Messages


def told_refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a command ended with, which must be all it said."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith('{"')]  # other lines are the log's
    assert "Traceback" not in done.stderr
    assert (done.returncode, len(lines), done.stdout) == (1, 1, ""), done.stderr
    assert lines[0].startswith("ecomcharge: ")
    return lines[0]


REFUSALS = {
    "serve --database mysql://root:hunter22@localhost/shop": "postgresql://",
    "serve --database sqlite:///:memory:": "sqlite:///relative/file.db",
    "serve --database customers.db": "sqlite:///file.db",
    "serve --database sqlite:////proc/nowhere/test.db": "/proc/nowhere",
    "serve --database sqlite:///{garbage}": "{garbage}",
    "serve --database postgresql://me:hunter22@127.0.0.1:{free}/shop": "{free}",
    "serve --database postgresql://me:hunter22@127.0.0.1:notaport/shop": "percent-encoded",
    "serve --tls-certificate {garbage}": "--tls-key",
    "serve --tls-key {garbage}": "--tls-certificate",
    "serve --tls-certificate /nowhere.pem --tls-key /nowhere.pem": "/nowhere.pem",
    "serve --tls-certificate {garbage} --tls-key {garbage}": "{garbage}",
    "serve --trusted-proxies nonsense": "nonsense",
    "serve --master-key short": "master-key new",
    "serve --master-key-file /nowhere.key": "/nowhere.key",
    "serve --port {taken}": "{taken}",
    "serve --host 192.0.2.1": "192.0.2.1",
    "shops rotate-key 77": "77",
    "shops close 77": "77",
    "shops open 77": "77",
    "shops create --name Test --shop-id 0": "shop id",
    "shops create --name Test --secret-key short": "8 characters",
}


@dataclass(frozen=True)
class Refusals:
    facts: dict[str, object]
    done: dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """What all the commands of ``REFUSALS`` say; they run side by side, since most of a command is its start."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "garbage").write_bytes(b"garbage" * 1000)
    assert command("migrate", "--database", f"sqlite:///{folder}/test.db").returncode == 0

    def run(line: str) -> subprocess.CompletedProcess[str]:
        words = line.format(**facts).split()
        if "--database" not in words:
            words += ["--database", f"sqlite:///{folder}/test.db"]
        if "serve" in words and "--port" not in words:
            words += ["--port", str(free_port())]
        return command(*words, environment={} if "--master-key" in line else None)

    with socket.socket() as taken, ThreadPoolExecutor(4) as threads:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        facts: dict[str, object] = {"garbage": folder / "garbage", "free": free_port(), "taken": taken.getsockname()[1]}
        return Refusals(facts, dict(zip(REFUSALS, threads.map(run, REFUSALS), strict=True)))


@pytest.mark.parametrize("line", REFUSALS)
def test_a_command_says_in_one_sentence_why_it_cannot(refusals: Refusals, line: str) -> None:
    sentence = told_refusal(refusals.done[line])

    assert REFUSALS[line].format(**refusals.facts) in sentence
    assert "hunter22" not in sentence


def test_a_port_that_another_server_of_ours_has_is_refused(pair: ServerProcess, tmp_path: Path) -> None:
    """Two servers with different databases would otherwise share the requests between them."""
    done = command("serve", "--port", str(pair.port), "--database", f"sqlite:///{tmp_path}/other.db", timeout_seconds=8)

    assert str(pair.port) in told_refusal(done)


def test_without_a_master_key_postgresql_is_refused_with_a_way_out() -> None:
    database = f"postgresql://me@127.0.0.1:{free_port()}/shop"
    sentence = told_refusal(command("serve", "--port", str(free_port()), "--database", database, environment={}))

    assert "ecomcharge master-key new" in sentence
    assert "ECOMCHARGE_MASTER_KEY" in sentence


def test_a_new_master_key_is_one_that_can_be_used(tmp_path: Path) -> None:
    made = command("master-key", "new").stdout.strip()
    database = f"sqlite:///{tmp_path}/test.db"
    create = ("shops", "create", "--name", "Test", "--shop-id", "5", "--database", database)

    assert command(*create, environment={"ECOMCHARGE_MASTER_KEY": made}).returncode == 0
    again = command(*create, environment={"ECOMCHARGE_MASTER_KEY": made})
    assert told_refusal(again) == "ecomcharge: shop 5 already exists"
