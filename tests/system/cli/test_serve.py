"""The output of ``serve`` at its start, and the reasons why commands refuse to run."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ecomcharge.runtime.listening import can_listen_on_both_loopback_addresses
from support.builders import a_plan
from support.operations import command, get
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import Start


def test_a_sandbox_prints_a_working_curl_command_and_its_key_once(start: Start) -> None:
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


def test_a_sqlite_server_creates_a_master_key_readable_by_its_owner_only(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/new/folder/test.db"

    done = command("shops", "create", "--name", "Test", "--database", database, environment={})

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new/folder/test.db.master-key").stat().st_mode & 0o777 == 0o600


def refusal_of(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the sentence that a command ended with, and checks that it is the whole output."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith('{"')]  # the other lines are from the log
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
    "serve --frame-ancestors https://*.shop.example": "https://*.shop.example",
    "serve --master-key short": "master-key new",
    "serve --master-key-file /nowhere.key": "/nowhere.key",
    "serve --port {taken}": "{taken}",
    "serve --host 192.0.2.1": "192.0.2.1",
    "shops rotate-key 77": "77",
    "shops close 77": "77",
    "shops open 77": "77",
    "shops create --name Test --shop-id 0": "shop id",
    "shops create --name Test --secret-key short": "32 characters",
}


@dataclass(frozen=True)
class Refusals:
    facts: dict[str, object]
    done: dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Refusals:
    """The output of all commands of ``REFUSALS``. They run concurrently, because a start takes most of the time."""
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
def test_a_refused_command_prints_its_reason_in_one_sentence(refusals: Refusals, line: str) -> None:
    sentence = refusal_of(refusals.done[line])

    assert REFUSALS[line].format(**refusals.facts) in sentence
    assert "hunter22" not in sentence


def test_a_port_in_use_by_another_ecomcharge_server_is_refused(pair: ServerProcess, tmp_path: Path) -> None:
    """Otherwise the kernel would distribute the requests over two servers with different databases."""
    done = command("serve", "--port", str(pair.port), "--database", f"sqlite:///{tmp_path}/other.db", timeout_seconds=8)

    assert str(pair.port) in refusal_of(done)


def test_without_a_master_key_postgresql_is_refused_with_instructions() -> None:
    database = f"postgresql://me@127.0.0.1:{free_port()}/shop"
    sentence = refusal_of(command("serve", "--port", str(free_port()), "--database", database, environment={}))

    assert "ecomcharge master-key new" in sentence
    assert "ECOMCHARGE_MASTER_KEY" in sentence


def test_a_generated_master_key_is_accepted(tmp_path: Path) -> None:
    made = command("master-key", "new").stdout.strip()
    database = f"sqlite:///{tmp_path}/test.db"
    create = ("shops", "create", "--name", "Test", "--shop-id", "5", "--database", database)

    assert command(*create, environment={"ECOMCHARGE_MASTER_KEY": made}).returncode == 0
    again = command(*create, environment={"ECOMCHARGE_MASTER_KEY": made})
    assert refusal_of(again) == "ecomcharge: shop 5 already exists"


@pytest.mark.parametrize(("host", "loopback"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])
def test_a_server_on_all_interfaces_makes_links_that_work_and_warns_once(start: Start, host: str, loopback: str) -> None:
    process = start("--sandbox", "--host", host)
    printed = process.log()
    here = f"http://{loopback}:{process.port}"
    secret_key = re.search(r"secret key: (\S+)", printed)
    assert secret_key is not None
    assert f"ecomcharge sandbox on {here} " in printed
    warnings = [json.loads(line) for line in printed.splitlines() if "--public-url" in line]
    assert [(warning["level"], warning["host"], warning["links_begin_with"]) for warning in warnings] == [("warning", host, here)]
    body = {"plan": a_plan(999)}
    with httpx.Client(auth=("1", secret_key[1]), headers={"Host": "evil.test", "X-Forwarded-Host": "evil.test"}) as client:
        subscription = client.post(f"{process.url}/subscriptions", json=body).json()
    assert subscription["plan"]["pay_url"].startswith(f"{here}/plans/")
    assert httpx.get(subscription["redirect_url"]).status_code == 200


def test_a_server_on_all_interfaces_with_a_public_url_does_not_warn(start: Start) -> None:
    process = start("--host", "0.0.0.0", "--public-url", "https://pay.example")
    assert "--public-url" not in process.log()


@pytest.mark.skipif(not can_listen_on_both_loopback_addresses(), reason="needs Linux with IPv6")
def test_localhost_is_both_loopback_addresses_and_the_log_has_the_address(tmp_path: Path) -> None:
    with ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, "--host", "localhost") as process:
        statuses = [httpx.get(f"http://{host}:{process.port}/healthz").status_code for host in ("127.0.0.1", "[::1]")]
        lines = [json.loads(line) for line in process.log().splitlines()]
        second = command("serve", "--database", process.database, "--host", "localhost", "--port", str(process.port))

    assert statuses == [200, 200]
    [line] = [line for line in lines if line["event"] == "the server listens"]
    assert line["address"] == line["links_begin_with"] == f"http://localhost:{process.port}"
    assert second.returncode == 1
    assert f"cannot listen on localhost:{process.port}" in second.stderr
