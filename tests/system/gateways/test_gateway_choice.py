"""Sandbox and real money do not mix: a shop without a gateway charges nothing, and a sandbox refuses real gateways."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecomcharge.checkout.results import UNAVAILABLE
from ecomcharge.checkout.translations import LANGUAGES, translation_for
from ecomcharge.gateways import base
from ecomcharge.gateways.base import CardDetails, Order
from ecomcharge.gateways.registry import GatewayRegistry
from ecomcharge.shops.actions import create_shop, set_gateway
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.store import SUBSCRIPTIONS_BY_ACCOUNT, find_account
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.migrate import migrate, migrations_for
from ecomcharge.storage.opening import open_database
from ecomcharge.subscriptions import lifecycle
from support.builders import a_card, a_customer, a_plan
from support.commands import WorkerProcess, ecomcharge
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop, with_database
from support.waiting import eventually

MESSAGE = base.NOT_CHOSEN_MESSAGE
CARD = a_card(verification_value="123", holder="John Doe", exp_month="01", exp_year="2060")
PLAN: dict[str, Any] = a_plan(999)
CUSTOMER = a_customer()
REAL = {"gateway": "begateway", "url": "https://gateway.example", "user": "361", "secret_key": "gateway-secret"}
STAND_IN = {**REAL, "url": "http://127.0.0.1:9"}


@pytest.fixture
def unchosen(server_process: ServerProcess, master_key: MasterKey) -> Shop:
    """A shop without a chosen gateway, on a server outside sandbox mode."""
    credentials = add_shop(server_process.database, master_key, gateway=None)
    return Shop(server_process.url, credentials.shop_id, credentials.secret_key, server_process)


@pytest.fixture
def http(unchosen: Shop) -> Iterator[httpx.Client]:
    with unchosen.client() as client:
        yield client


def choose(database_url: str, master_key: MasterKey, shop_id: int, **chosen: str) -> None:
    with_database(database_url, lambda database: set_gateway(database, master_key, 0, shop_id=shop_id, **chosen))


def run(url: str, sql: str, **params: Any) -> None:
    async def work(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run(sql, params)

        await database.write(unit)

    with_database(url, work)


def unchoose(shop: Shop) -> None:
    """Change the shop to one of the previous release, which charged in the sandbox by default."""
    run(shop.process.database, "UPDATE shops SET gateway_chosen_at = NULL WHERE shop_id = :shop_id", shop_id=shop.shop_id)


# Outside sandbox mode


@pytest.mark.parametrize("card", [CARD, {"token": "unknown"}, None], ids=["card", "token", "page"])
def test_a_shop_without_a_gateway_refuses_subscriptions_and_creates_nothing(http: httpx.Client, card: Any) -> None:
    body = {"plan": PLAN, "customer": CUSTOMER, **({"card": card} if card else {})}
    response = http.post("/subscriptions", json=body)
    assert (response.status_code, response.json()) == (422, {"errors": {"base": [MESSAGE]}, "message": MESSAGE})
    assert [http.get(path).json() for path in ("/subscriptions", "/customers", "/plans")] == [[], [], []]


def test_a_test_plan_needs_no_gateway(http: httpx.Client) -> None:
    response = http.post("/subscriptions", json={"plan": {**PLAN, "test": True}, "customer": CUSTOMER, "card": CARD})
    assert (response.status_code, response.json()["state"]) == (201, "active")
    plan = http.post("/plans", json={**PLAN, "test": True}).json()
    assert httpx.get(f"{http.base_url}/plans/{plan['id']}/pay").status_code == 302


def test_a_shop_that_chose_the_sandbox_charges_there(unchosen: Shop, http: httpx.Client) -> None:
    assert (
        ecomcharge(
            unchosen.process.database, "shops", "gateway", str(unchosen.shop_id), "sandbox", environment=ENVIRONMENT
        ).returncode
        == 0
    )
    response = http.post("/subscriptions", json={"plan": PLAN, "customer": CUSTOMER, "card": CARD})
    assert (response.status_code, response.json()["state"]) == (201, "active")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pay_link_displays_that_payment_is_not_possible(http: httpx.Client, language: str) -> None:
    plan = http.post("/plans", json={**PLAN, "language": language}).json()
    for path in (f"/plans/{plan['id']}/pay", f"/v2/confirm_order/{plan['id']}/{plan['shop_id']}" if "shop_id" in plan else None):
        if path is not None:
            response = httpx.get(f"{http.base_url}{path}")
            assert response.status_code == 409
            assert translation_for(language).gettext(UNAVAILABLE.title) in response.text
            assert httpx.head(f"{http.base_url}{path}").status_code == 409
    assert http.get("/subscriptions").json() == []


def test_the_page_of_an_older_subscription_displays_that_payment_is_not_possible(
    server: Shop,
) -> None:
    with server.client() as http:
        subscription = http.post("/subscriptions", json={"plan": PLAN, "customer": CUSTOMER}).json()
        address = subscription["redirect_url"]
        form_token = re.findall(r"[0-9a-f]{64}", httpx.get(address).text.partition("form_token")[2])[0]
        # This server has cached permanently that a gateway was chosen; a server started later has not.
        unchoose(server)
        folder = server.process.log_file.parent
        with ServerProcess(server.process.database, folder, environment=ENVIRONMENT) as later:
            moved = address.replace(server.url, later.url)
            for response in (httpx.get(moved), httpx.post(moved, data={**CARD, "form_token": form_token})):
                assert response.status_code == 409
                assert UNAVAILABLE.title in response.text
        assert http.get(f"/subscriptions/{subscription['id']}").json()["state"] == "redirecting"


def test_renewals_of_a_shop_without_a_gateway_are_errors_and_are_logged_once(
    database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    credentials = add_shop(database_url, master_key)
    with ServerProcess(database_url, tmp_path, environment=ENVIRONMENT) as process:
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        with shop.client() as http:
            bodies = [{"plan": {**PLAN, "test": test}, "customer": CUSTOMER, "card": CARD} for test in (False, False, True)]
            first, second, of_tests = (http.post("/subscriptions", json=body).json()["id"] for body in bodies)
            unchoose(shop)
            run(database_url, "UPDATE subscriptions SET due_at = 1, renew_at = 1")
            with WorkerProcess(database_url, tmp_path, environment=ENVIRONMENT) as worker:
                states = eventually(
                    lambda: {id_: http.get(f"/subscriptions/{id_}").json() for id_ in (first, second, of_tests)},
                    is_good=lambda read: (
                        all(one["last_transaction"]["message"] for one in read.values())
                        and {one["paid_billing_cycles"] for one in read.values()} == {1, 2}
                        and read[first]["state"] == read[second]["state"] == "rescuing"
                    ),
                )
                assert [states[id_]["last_transaction"]["message"] for id_ in (first, second)] == [MESSAGE, MESSAGE]
                assert states[of_tests]["state"] == "active"
            assert worker.log().count("charges of a shop are refused") == 1


def test_shops_create_reports_a_missing_gateway(database_url: str) -> None:
    def shops(*arguments: str) -> subprocess.CompletedProcess[str]:
        return ecomcharge(database_url, "shops", *arguments, environment=ENVIRONMENT)

    created = shops("create", "--name", "x", "--shop-id", "361", "--json")
    assert created.stdout.count("\n") == 1
    assert "ecomcharge shops gateway 361 begateway" in created.stderr
    assert "not chosen" in shops("show", "361").stdout
    shops("gateway", "361", "sandbox")
    assert "not chosen" not in shops("show", "361").stdout


# In sandbox mode


@pytest.mark.parametrize("command", [("serve",), ("worker",), ("clock", "show"), ("clock", "advance", "1d")], ids=" ".join)
def test_a_sandbox_does_not_start_while_an_open_shop_has_a_real_gateway(
    database_url: str, master_key: MasterKey, command: tuple[str, ...]
) -> None:
    shop_id = add_shop(database_url, master_key).shop_id
    choose(database_url, master_key, shop_id, **REAL)
    choose(database_url, master_key, shop_id, gateway="sandbox")  # existing subscriptions would be charged at the account
    done = ecomcharge(database_url, *command, "--sandbox", environment={**ENVIRONMENT, "ECOMCHARGE_PORT": str(free_port())})
    assert done.returncode == 1
    [reason] = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # without warnings about the server
    assert reason.startswith(f"ecomcharge: shop {shop_id} has a real gateway (account 1, https://gateway.example)")


@pytest.mark.parametrize("way_out", ["close", "forget", "stand-in"])
def test_a_sandbox_starts_once_no_open_shop_has_a_real_gateway(database_url: str, master_key: MasterKey, way_out: str) -> None:
    shop_id = add_shop(database_url, master_key).shop_id
    choose(database_url, master_key, shop_id, **(STAND_IN if way_out == "stand-in" else REAL))
    if way_out == "close":
        assert ecomcharge(database_url, "shops", "close", str(shop_id), environment=ENVIRONMENT).returncode == 0
    if way_out == "forget":
        choose(database_url, master_key, shop_id, gateway="sandbox")
        assert ecomcharge(database_url, "shops", "forget-account", str(shop_id), "1", environment=ENVIRONMENT).returncode == 0
    assert ecomcharge(database_url, "clock", "show", "--sandbox", environment=ENVIRONMENT).returncode == 0


def test_a_running_sandbox_does_not_charge_a_real_gateway_that_is_chosen_later(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> None:
        shop_id = (await create_shop(database, master_key, 0, name="Test")).shop_id
        await set_gateway(database, master_key, 0, shop_id=shop_id, **REAL)
        gateways = GatewayRegistry(database, master_key, "http://127.0.0.1", 0.2, sandbox_mode=True)
        gateway = await gateways.named("begateway", shop_id, "1")
        order = Order("1", shop_id, 999, "EUR", "Basic", False, "en", "http://127.0.0.1", {})
        charged = await gateway.charge(order, CardDetails("4200000000000000", "123", None, 1, 2060), 0)
        assert (charged.status, charged.message) == (base.ERROR, base.SANDBOX_MODE_MESSAGE)
        found = await gateway.look_up(shop_id, "1", 0, amount=999, currency="EUR")
        assert found is not None
        assert found.status == base.UNKNOWN
        assert not await gateways.charges("begateway", shop_id, "1", test=False)
        await gateways.close()

    with_database(database_url, work)


# The schema


def test_accounts_of_the_previous_release_are_kept(database_url: str, master_key: MasterKey) -> None:
    """Accounts from before the migration, and one that the previous release adds after it."""

    async def work() -> None:
        database = await open_database(database_url)
        try:
            await database.migrate([one for one in migrations_for(database.engine) if one.version < 5])
            await _set_up(database, 1)
            await migrate(database)
            await _set_up(database, 2)
            for shop_id in (1, 2):
                account = await find_account(database, shop_id, "1")
                assert account is not None
                assert (account.url, account.user, account.sealed_key) == (f"https://{shop_id}.example", "361", "sealed")
            await set_gateway(database, master_key, 0, shop_id=2, **REAL)
            kept = await find_account(database, 2, "1")
            assert kept is not None
            assert kept.url == "https://2.example"
        finally:
            await database.close()

    asyncio.run(work())


async def _set_up(database: Database, shop_id: int) -> None:
    async def unit(tx: Transaction) -> None:
        await tx.run(
            "INSERT INTO shops (shop_id, name, created_at, gateway, gateway_url, gateway_user, sealed_gateway_key)"
            " VALUES (:shop_id, 'x', 7, 'begateway', :url, '361', 'sealed')",
            {"shop_id": shop_id, "url": f"https://{shop_id}.example"},
        )

    await database.write(unit)


def test_account_usage_ignores_final_states() -> None:
    named = re.findall(r"'(\w+)'", SUBSCRIPTIONS_BY_ACCOUNT.partition("NOT IN")[2].partition(")")[0])
    assert set(named) == lifecycle.OVER
