"""The measured systems: each one defines how to start it, which requests to send, and how to stop it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import psutil
from bulk import COLUMNS, customers

from support.postgres import PostgresServer, free_port

HERE = Path(__file__).parent
SERVER_CORE, CLIENT_CORE = "0", "1"
JOHN = {
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
SEEDED_CUSTOMERS = 10_000
SEEDED_SUBSCRIPTIONS = 2_000
CARD = {"number": "4200000000000000", "verification_value": "123", "holder": "John Doe", "exp_month": 12, "exp_year": 2099}
PLAN = {"title": "Basic plan", "currency": "EUR", "test": True, "plan": {"amount": 999, "interval": 1, "interval_unit": "month"}}


def on_core(core: str | None, *command: str) -> list[str]:
    return ["taskset", "-c", core, *command] if core else list(command)


@dataclass
class System:
    """A server under load. ``core`` is the processor core that it uses; ``None`` means all cores."""

    name: str
    folder: Path
    core: str | None = SERVER_CORE
    path: str = "/customers"
    create_workload: str = "create"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    authorization: str = ""
    memory: float = 0.0  # MiB

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ids_file(self) -> Path:
        return self.folder / f"{self.name}.ids"

    def file_of(self, workload: str) -> Path:
        """The file of ids or queries for a workload on customers."""
        return self.ids_file

    @property
    def subscription_ids_file(self) -> Path:
        return self.folder / f"{self.name}.subscription-ids"

    def body_file(self, name: str) -> Path:
        """A body to post. ``{n}`` is replaced with the number of the request."""
        return self.folder / f"{self.name}.{name}"

    def start(self) -> None:
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                on_core(self.core, *self.command()),
                env=self.environment(),
                cwd=HERE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(200):
            try:
                httpx.get(self.url, timeout=2)
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {(self.folder / f'{self.name}.log').read_text()}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:  # uvicorn does not end while requests of its thread pool are queued
                self.process.kill()
                self.process.wait()

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}

    def memory_mebibytes(self) -> float:
        """Returns the resident memory of the server and its workers."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        resident: int = sum(process.memory_info().rss for process in [parent, *parent.children(recursive=True)])
        return resident / 2**20

    def check(self) -> None:
        """Raise unless a create and a read have the expected responses."""

    def seed(self) -> None:
        """Create the customers for the reads over HTTP, and write their ids to a file."""
        headers = {"Authorization": self.authorization}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as http:
            ids = [self.create(http, number) for number in range(SEEDED_CUSTOMERS)]
        self.ids_file.write_text("\n".join(ids) + "\n")

    def create(self, http: httpx.Client, number: int) -> str:
        response = http.post(self.path, json={**JOHN, "email": f"seed{number}@example.com"})
        response.raise_for_status()
        customer_id: str = response.json()["id"]
        return customer_id

    def seed_subscriptions(self) -> None:
        """Create a plan and subscriptions paid by card over HTTP, and write the bodies that create more."""
        headers = {"Authorization": self.authorization}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as http:
            plan = http.post("/plans", json=PLAN)
            plan.raise_for_status()
            hosted = {"plan": {"id": plan.json()["id"]}, "tracking_id": "order-{n}", "return_url": "https://shop.example/thanks"}
            by_card = {**hosted, "customer": {**JOHN, "email": "c{n}@example.com"}, "card": CARD}
            self.body_file("hosted").write_text(json.dumps(hosted))
            self.body_file("card").write_text(json.dumps(by_card))
            body, ids = json.dumps(by_card), []
            for number in range(SEEDED_SUBSCRIPTIONS):
                content = body.replace("{n}", str(number))
                made = http.post("/subscriptions", content=content, headers={"Content-Type": "application/json"})
                made.raise_for_status()
                assert made.json()["state"] == "active", made.text
                ids.append(made.json()["id"])
        self.subscription_ids_file.write_text("\n".join(ids) + "\n")


@dataclass
class Ecomcharge(System):
    database: str = ""
    workers: int = 1
    options: Sequence[str] = ()
    module: str = "ecomcharge"  # the module that runs as the program
    shop_id: str = ""
    still_authorization: str = ""  # of a shop to which no benchmark adds customers

    def command(self) -> Sequence[str]:
        return [
            *(sys.executable, "-m", self.module, "serve", "--database", self.database, "--port", str(self.port)),
            *("--workers", str(self.workers), "--log-format", "json", *self.options),
        ]

    def environment(self) -> dict[str, str]:
        key = base64.b64encode(bytes(32)).decode()
        return super().environment() | {"ECOMCHARGE_MASTER_KEY": key}

    def new_shop(self) -> tuple[str, str]:
        """Create a shop. Returns its number and its Authorization header."""
        command = [sys.executable, "-m", self.module, "shops", "create", "--name", "bench", "--json"]
        made = subprocess.run(
            [*command, "--database", self.database], env=self.environment(), capture_output=True, text=True, check=True
        )
        shop = json.loads(made.stdout)
        choose = [sys.executable, "-m", self.module, "shops", "gateway", str(shop["shop_id"]), "sandbox"]
        subprocess.run([*choose, "--database", self.database], env=self.environment(), stdout=subprocess.DEVNULL, check=True)
        return str(shop["shop_id"]), basic(str(shop["shop_id"]), shop["secret_key"])

    def import_customers(self, shop_id: str, count: int, *, with_external_ids: bool = False) -> None:
        """Import customers through a pipe. Their ids are the numbers from zero, their external ids ``x0``, ``x1`` and so on."""
        names = COLUMNS.split(", ")[1:]
        command = [sys.executable, "-m", self.module, "customers", "import", "-", "--shop-id", shop_id]
        with subprocess.Popen(
            [*command, "--database", self.database], env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as importing:
            assert importing.stdin is not None
            for number, customer in enumerate(customers(count)):
                fields = dict(zip(names, customer[1:], strict=True))
                if with_external_ids:
                    fields["external_id"] = f"x{number}"
                importing.stdin.write(msgspec.json.encode(fields) + b"\n")
            importing.stdin.close()
        assert importing.returncode == 0

    def start(self) -> None:
        self.shop_id, self.authorization = self.new_shop()
        super().start()

    def check(self) -> None:
        headers = {"Authorization": self.authorization}
        with httpx.Client(base_url=self.url, headers=headers) as http:
            created = http.post("/customers", json=JOHN)
            assert created.status_code == 201, created.text
            expected = {"id": created.json()["id"], **JOHN}
            assert http.get(created.headers["location"]).json() == expected

    def seed(self) -> None:
        super().seed()
        if self.workers == 1:
            still, self.still_authorization = self.new_shop()
            self.import_customers(still, SEEDED_CUSTOMERS)
            self.seed_subscriptions()


@dataclass
class Floor(System):
    interface: str = "rsgi"
    application: str = "rsgi"
    host: str = "127.0.0.1"
    path: str = "/customers/cst_7aee5afb954c7ef7"

    def command(self) -> Sequence[str]:
        granian = Path(sys.executable).with_name("granian")
        options = [
            "--interface",
            self.interface,
            "--port",
            str(self.port),
            *("--host", self.host),
            "--loop",
            "uvloop",
            "--http",
            "1",
            "--no-ws",
            "--no-log",
        ]
        return [str(granian), *options, f"floor:{self.application}"]

    def seed(self) -> None:
        pass


@dataclass
class FastApi(System):
    def command(self) -> Sequence[str]:
        uvicorn = Path(sys.executable).with_name("uvicorn")
        options = [
            "--port",
            str(self.port),
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--log-level",
            "warning",
        ]
        return [str(uvicorn), *options, "peers.fastapi_subscriptions:app"]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PEER_DATABASE": str(self.folder / "fastapi.db"), "PEER_KEY": "key"}

    def start(self) -> None:
        self.authorization = basic("1", "key")
        super().start()

    def seed(self) -> None:
        super().seed()
        self.seed_subscriptions()


@dataclass
class Localstripe(System):
    path: str = "/v1/customers"
    create_workload: str = "form"

    def command(self) -> Sequence[str]:
        return [str(Path(sys.executable).with_name("localstripe")), "--port", str(self.port), "--from-scratch"]

    def start(self) -> None:
        self.authorization = basic("sk_test_12345", "")
        super().start()

    def create(self, http: httpx.Client, number: int) -> str:
        response = http.post(self.path, data={"name": "John Doe", "email": f"seed{number}@example.com"})
        response.raise_for_status()
        customer_id: str = response.json()["id"]
        return customer_id

    def seed(self) -> None:
        headers = {"Authorization": self.authorization}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as http:
            ids = [self.create(http, number) for number in range(200)]  # it becomes slower with every customer
            plan = http.post(
                "/v1/plans", data={"amount": "999", "currency": "eur", "interval": "month", "product[name]": "Basic"}
            )
            wanted = {"items[0][plan]": plan.json()["id"], "trial_period_days": "7"}  # so that a subscription needs no card
            made = [http.post("/v1/subscriptions", data={"customer": customer_id, **wanted}) for customer_id in ids[:50]]
        self.ids_file.write_text("\n".join(ids) + "\n")
        self.subscription_ids_file.write_text("\n".join(response.json()["id"] for response in made) + "\n")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def all_systems(folder: Path, postgres: PostgresServer) -> list[System]:
    """Returns the systems. Each server has one core; with PostgreSQL, both servers and the client share both cores."""

    def sqlite(name: str) -> str:
        return f"sqlite:///{folder}/{name}.db"

    return [
        Floor("granian-rsgi", folder),
        Floor("granian-asgi", folder, interface="asginl", application="asgi"),
        Floor("granian-rsgi-subscription", folder, application="rsgi_subscription"),
        Ecomcharge("sqlite-1", folder, database=sqlite("one")),
        Ecomcharge("sqlite-2", folder, core=None, database=sqlite("two"), workers=2),
        Ecomcharge("postgres-1", folder, core=None, database=postgres.create_database("one")),
        Ecomcharge("postgres-2", folder, core=None, database=postgres.create_database("two"), workers=2),
        FastApi("fastapi", folder),
        Localstripe("localstripe", folder),
    ]
