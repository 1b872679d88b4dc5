"""The examples of the client in the documents run."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ecomcharge import Client
from support.client import as_shop
from support.documents import text_of
from support.postgres import free_port
from support.receiver import Received, Receiver
from support.shops import Shop
from support.webhooks import subscribe, webhook_key_of

URL = "http://127.0.0.1:8080"
EXAMPLES = re.findall(r"```python\n(.*?)```", text_of("README.md"), re.DOTALL)


def run(example: str, shop: Shop, **names: object) -> SimpleNamespace:
    """Run an example with the credentials of a shop, and return its names."""
    known: dict[str, Any] = {"shop_id": shop.shop_id, "secret_key": shop.secret_key, "__name__": "example", **names}
    exec(example.replace(URL, shop.url), known)
    return SimpleNamespace(**known)


def example_with(text: str) -> str:
    [example] = (str(each) for each in EXAMPLES if text in each)
    return example


@pytest.fixture
def webhook(sandbox: Shop, receiver: Receiver) -> Received:
    """A webhook that the server of the tests delivered."""
    subscribe(sandbox, receiver.url)
    with sandbox.client() as http:
        http.post("/sandbox/clock/advance", json={"step": "1s"}).raise_for_status()
    return receiver.wait_for(1)[0]


def test_the_readme_has_these_examples() -> None:
    assert len(EXAMPLES) == 5


def test_the_first_example_creates_and_lists_a_customer(server: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    run(EXAMPLES[0], server)
    assert "customer@example.com" in capsys.readouterr().out


def test_the_checkout_returns_the_payment_page_once_for_each_order(server: Shop) -> None:
    example = run(example_with("start_checkout"), server)
    with example.client:
        page = example.start_checkout("order-42")
        assert example.start_checkout("order-42") == page
        assert example.start_checkout("order-43") != page
    assert "9.99" in httpx.get(page).raise_for_status().text


def test_the_flask_handler_takes_a_delivered_webhook(
    sandbox: Shop, webhook: Received, capsys: pytest.CaptureFixture[str]
) -> None:
    http = run(example_with("Flask"), sandbox, webhook_key=webhook_key_of(sandbox)).app.test_client()
    assert http.post("/webhooks", data=webhook.body, headers=webhook.headers).status_code == 200
    assert "created.subscription None active" in capsys.readouterr().out
    assert http.post("/webhooks", data=webhook.body + b" ", headers=without_length(webhook)).status_code == 400
    assert http.post("/webhooks", data=webhook.body).status_code == 400


def test_the_fastapi_handler_takes_a_delivered_webhook(
    sandbox: Shop, webhook: Received, capsys: pytest.CaptureFixture[str]
) -> None:
    app = run(example_with("FastAPI"), sandbox, webhook_key=webhook_key_of(sandbox)).app

    async def work() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as http:
            answers = [
                await http.post("/webhooks", content=webhook.body, headers=webhook.headers),
                await http.post("/webhooks", content=webhook.body + b" ", headers=without_length(webhook)),
                await http.post("/webhooks", content=webhook.body),
            ]
        return [answer.status_code for answer in answers]

    assert asyncio.run(work()) == [200, 400, 400]
    assert capsys.readouterr().out == "created.subscription None active\n"


def test_the_fixture_for_ci_starts_a_server_and_ends_it(tmp_path: Path) -> None:
    port = free_port()
    example = example_with("pytest.fixture").replace(URL, f"http://127.0.0.1:{port}").replace('"8080"', f'"{port}"')
    (tmp_path / "test_payments.py").write_text(example)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ECOMCHARGE_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, "PATH": programs}, capture_output=True, text=True, timeout=120, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_the_examples_of_the_page_of_the_client_run(server: Shop) -> None:
    first, change = re.findall(r"```python\n(.*?)```", text_of("docs/client.md"), re.DOTALL)
    customer = run(first, server).customer
    with as_shop(Client, server) as client:
        run(change, server, client=client, customer=customer)
        assert client.get_customer(customer.id).city == "Denver"


def without_length(webhook: Received) -> dict[str, str]:
    return {name: value for name, value in webhook.headers.items() if name != "content-length"}
