"""Accounts at a real gateway: their commands, a changed key, several accounts of one shop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import uuid
from typing import Any

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.shops.actions import set_gateway
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support import begateway as stand_in
from support.begateway import GatewayServer, refusing_address
from support.commands import ecomcharge
from support.gateway_shop import A_PERIOD, PLAN, Merchant
from support.shops import ENVIRONMENT, add_shop, with_database


@pytest.mark.parametrize(
    "url", ["gateway.example.com", "https://", "https://a b", "https://x:99999", "https://x/?y=1", "ftp://x"]
)
def test_an_invalid_gateway_address_is_refused(url: str, database_url: str, master_key: MasterKey) -> None:
    credentials = add_shop(database_url, master_key)

    async def set_up(database: Database) -> None:
        await set_gateway(
            database, master_key, 0, shop_id=credentials.shop_id, gateway="begateway", url=url, user="1", secret_key="x"
        )

    with pytest.raises(ConfigurationError, match="--url must be"):
        with_database(database_url, set_up)


def test_a_stored_response_is_replayed_after_the_shop_changed_accounts(merchant: Merchant, master_key: MasterKey) -> None:
    token = merchant.subscribe()["card"]["token"]
    body = {"plan": PLAN, "customer": {"email": "john@example.com"}, "card": {"token": token}}
    headers = {"Idempotency-Key": "by token"}
    first = merchant.http.post("/subscriptions", json=body, headers=headers)
    with_database(
        merchant.server.database,
        lambda database: set_gateway(database, master_key, 0, shop_id=merchant.shop_id, gateway="sandbox"),
    )
    again = merchant.http.post("/subscriptions", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len(merchant.account.charges) == 2


def test_refused_connections_are_errors_and_renewals_are_retried(
    merchant: Merchant, master_key: MasterKey, gateway_server: GatewayServer
) -> None:
    subscription = merchant.subscribe()

    async def move(url: str) -> None:
        async def set_url(database: Database) -> None:
            async def unit(tx: Transaction) -> None:  # no command does this, because another address is another account
                await tx.run(
                    "UPDATE gateway_accounts SET url = :url WHERE shop_id = :shop_id", {"url": url, "shop_id": merchant.shop_id}
                )

            await database.write(unit)

        await asyncio.to_thread(with_database, merchant.server.database, set_url)
        await asyncio.sleep(5)  # servers apply a changed setting within five seconds

    with refusing_address() as url:
        asyncio.run(move(url))
        assert merchant.subscribe()["state"] == "failed"
        merchant.advance(A_PERIOD)
        assert merchant.read(subscription)["state"] == "rescuing"
    asyncio.run(move(gateway_server.url))
    merchant.advance("2h")
    assert merchant.read(subscription)["state"] == "active"
    assert merchant.statuses() == [(0, "successful"), (0, "error"), (1, "error"), (1, "successful")]


def test_a_charge_without_outcome_is_looked_up_at_its_account(merchant: Merchant, gateway_server: GatewayServer) -> None:
    merchant.account.fail(stand_in.SILENT_AFTER)
    subscription = merchant.subscribe()
    assert subscription["state"] == "getting_status"
    moved_to = gateway_server.account()
    merchant.choose(moved_to, gateway_server.url)
    time.sleep(5)  # servers apply a changed setting within five seconds
    merchant.advance("20min")
    assert merchant.read(subscription)["state"] == "active"
    assert merchant.statuses() == [(0, "successful")]
    assert len(merchant.account.taken) == 1
    assert moved_to.seen == []


def test_each_subscription_renews_at_its_original_account(merchant: Merchant, gateway_server: GatewayServer) -> None:
    first = merchant.subscribe()
    moved_to = gateway_server.account()
    merchant.choose(moved_to, gateway_server.url)
    second = merchant.subscribe()
    merchant.choose(None)
    third = merchant.subscribe()
    time.sleep(5)  # servers apply a changed setting within five seconds
    merchant.advance(A_PERIOD)
    read = [merchant.read(subscription) for subscription in (first, second, third)]
    assert [(one["state"], one["paid_billing_cycles"]) for one in read] == [("active", 2)] * 3
    assert (len(merchant.account.taken), len(moved_to.taken)) == (2, 2)
    made = [{(one["gateway"], one["gateway_account"]) for one in merchant.payments_of(made)} for made in (first, second, third)]
    assert made == [{("begateway", "1")}, {("begateway", "2")}, {("sandbox", None)}]


def test_a_new_secret_key_is_used_for_earlier_charges_of_the_account(merchant: Merchant, gateway_server: GatewayServer) -> None:
    subscription = merchant.subscribe()
    merchant.account.secret_key = f"gw-secret-{uuid.uuid4().hex}"
    merchant.choose(merchant.account, f"{gateway_server.url}/")
    time.sleep(5)  # servers apply a changed setting within five seconds
    merchant.advance(A_PERIOD)
    assert merchant.read(subscription)["paid_billing_cycles"] == 2
    assert {payment["gateway_account"] for payment in merchant.payments()} == {"1"}


def test_the_commands_list_uses_of_an_account_and_keep_accounts_in_use(merchant: Merchant, gateway_server: GatewayServer) -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ecomcharge(merchant.server.database, "shops", *arguments, environment={**ENVIRONMENT, **environment})

    def accounts() -> list[tuple[Any, ...]]:
        accounts = json.loads(run("show", shop, "--json").stdout)["gateway_accounts"]
        return [(one["id"], one["user"], one["current"], one["subscriptions"], one["unsettled_payments"]) for one in accounts]

    shop, first, second = str(merchant.shop_id), merchant.account, gateway_server.account()
    merchant.other_accounts.append(second)
    renewing = merchant.subscribe()
    first.fail(stand_in.SILENT_AFTER)
    waiting = merchant.subscribe()
    assert accounts() == [("1", first.user, True, 2, 1)]
    assert "charges the new subscriptions" in run("forget-account", shop, "1").stderr

    done = run(
        *("gateway", shop, "begateway", "--url", gateway_server.url, "--user", second.user),
        ECOMCHARGE_GATEWAY_SECRET_KEY=second.secret_key,
    )
    kept = f"account 1 ({gateway_server.url}, as {first.user})"
    needed = "2 subscriptions renew there, 1 payment is not settled"
    assert f"{kept} is kept: {needed}\n" in done.stdout
    assert accounts() == [("1", first.user, False, 2, 1), ("2", second.user, True, 0, 0)]
    assert needed in run("show", shop).stdout
    refused = run("forget-account", shop, "1")
    assert (refused.returncode, refused.stderr) == (1, f"ecomcharge: {kept} is still needed: {needed}\n")

    merchant.advance("5min")
    for subscription in (renewing, waiting):
        assert merchant.read(subscription)["state"] == "active"
        merchant.http.delete(f"/subscriptions/{subscription['id']}")
    assert accounts()[0] == ("1", first.user, False, 0, 0)
    assert run("forget-account", shop, "1").returncode == 0
    assert accounts() == [("2", second.user, True, 0, 0)]
    assert "has no account 1" in run("forget-account", shop, "1").stderr
    third = gateway_server.account()  # the id is not reused
    merchant.choose(third, gateway_server.url)
    assert [account[0] for account in accounts()] == ["2", "3"]
