"""``/metrics`` of servers and workers."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest

from ecomcharge.gateways import sandbox
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support.billing import HOUR, NUMBER_OF
from support.builders import a_card, a_plan
from support.commands import WorkerProcess
from support.metrics import samples
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database
from support.waiting import eventually

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations.md"


def test_metrics_combine_the_server_and_its_worker_and_include_the_backlog(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, tmp_path, "--sandbox", "--worker", "--workers", "2", environment=ENVIRONMENT) as process:
        auth = (str(shop.shop_id), shop.secret_key)
        plan = a_plan(5, unit="hour", title="Hourly", test=True)
        card = a_card(NUMBER_OF[sandbox.SUCCESSFUL])
        with httpx.Client(base_url=process.url, auth=auth, timeout=30) as http:
            http.post("/sandbox/clock/freeze")
            wanted = {"plan": plan, "customer": {"email": "jane@shop.test"}, "card": card}
            assert http.post("/subscriptions", json=wanted).status_code == 201

            def counted(kind: str) -> float:
                text = http.get("/metrics").text
                return samples(text).get(f'ecomcharge_charges_total{{kind="{kind}",outcome="successful"}}', 0)

            assert eventually(lambda: counted("first") == 1)
            # The clock is moved in the database, so that the worker and not the server makes the charge.
            with_clock_moved(database_url, HOUR + 1)
            assert eventually(lambda: counted("renewal") == 1)
            assert eventually(lambda: "ecomcharge_renewals_due 0.0" in http.get("/metrics").text)
            assert counted("first") == 1


def with_clock_moved(url: str, milliseconds: int) -> None:
    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE sandbox_clock SET frozen_at = frozen_at + :by WHERE name = 'clock'", {"by": milliseconds})

        await database.write(unit)

    with_database(url, work)


def test_metrics_of_a_server_without_a_worker_include_the_backlog(start_url: str, tmp_path: Path) -> None:
    with ServerProcess(start_url, tmp_path, environment=ENVIRONMENT) as process:
        assert eventually(lambda: "ecomcharge_renewals_due 0.0" in httpx.get(f"{process.url}/metrics").text)


@pytest.fixture
def start_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.db"


def test_a_separate_worker_serves_metrics_on_its_port(start_url: str, tmp_path: Path) -> None:
    port = free_port()
    with WorkerProcess(start_url, tmp_path, "--metrics-port", str(port), environment=ENVIRONMENT) as worker:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).text == '{"status":"ok"}'
            except httpx.TransportError:
                return False

        assert eventually(answers), worker.log()
        assert eventually(lambda: "ecomcharge_webhooks_pending 0.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").headers["content-type"].startswith("text/plain")
        assert httpx.get(f"http://127.0.0.1:{port}/customers").status_code == 404
        assert httpx.post(f"http://127.0.0.1:{port}/metrics").status_code == 405
        with socket.create_connection(("127.0.0.1", port)) as silent:  # a silent connection delays no request and not the exit
            assert answers()
            assert worker.stop() == 0
            silent.close()


def test_a_worker_whose_metrics_port_is_in_use_reports_it(start_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with WorkerProcess(start_url, tmp_path, "--metrics-port", str(port), environment=ENVIRONMENT) as worker:
            assert worker.process.wait(30) == 1
    assert worker.log().splitlines()[-1].startswith(f"ecomcharge: --metrics-port: cannot listen on 127.0.0.1:{port}:")


def test_the_document_names_every_metric_and_an_alert_for_each(start_url: str, tmp_path: Path) -> None:
    with ServerProcess(start_url, tmp_path, environment=ENVIRONMENT) as process:
        assert eventually(lambda: "ecomcharge_renewals_due" in httpx.get(f"{process.url}/metrics").text)
        text = httpx.get(f"{process.url}/metrics").text
    exposed = set(re.findall(r"^# TYPE (ecomcharge_\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    section = DOCUMENT.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    table = set(re.findall(r"^\| `(ecomcharge_\w+)`", section, re.MULTILINE))
    alerts = "\n".join(re.findall(r"```yaml\n(.*?)```", section, re.DOTALL))

    assert table == exposed
    for name in exposed - {"ecomcharge_database_work_total"}:  # a measure of load, not of errors
        assert name in alerts, f"no alert uses {name}"
    assert set(re.findall(r"ecomcharge_\w+?(?=_bucket|_count|\b)", alerts)) <= exposed
