"""A charge without a response is found by a lookup and counted once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from support import begateway as stand_in
from support.begateway import GatewayServer
from support.gateway_shop import A_PERIOD, PLAN, Merchant, assert_no_secret_is_kept, assert_records_agree, with_gateway
from support.process import ServerProcess
from support.shops import ENVIRONMENT, with_database
from support.waiting import eventually


def end_leases(database_url: str) -> None:
    """Expire the leases, as two minutes of time would."""

    async def end(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE subscriptions SET leased_until = 0", {})

        await database.write(unit)

    with_database(database_url, end)


@pytest.mark.parametrize(
    "fault",
    [stand_in.SILENT_AFTER, stand_in.FAULT_502_AFTER, stand_in.DROPPED_DURING_RESPONSE, stand_in.OTHER_AMOUNT, stand_in.LATE],
)
def test_a_first_charge_whose_response_is_lost_is_found_and_counted_once(merchant: Merchant, fault: str) -> None:
    merchant.account.fail(fault)
    subscription = merchant.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("getting_status", "incomplete")
    merchant.advance("2min")
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
    merchant.advance(A_PERIOD)
    assert merchant.statuses() == [(0, "successful"), (1, "successful")]


def test_a_renewal_whose_response_is_lost_is_found_and_counted_once(merchant: Merchant) -> None:
    subscription = merchant.subscribe()
    merchant.account.fail(stand_in.SILENT_AFTER, stand_in.FAULT_500_AFTER)
    merchant.account.fail(stand_in.SILENT_BEFORE, stand_in.FAULT_502_BEFORE, stand_in.NO_JSON, look_up=True)
    merchant.advance(A_PERIOD)
    merchant.advance("1h")
    assert merchant.read(subscription)["state"] == "active"
    merchant.advance(A_PERIOD)
    merchant.advance("1h")
    assert merchant.read(subscription)["paid_billing_cycles"] == 3
    assert len(merchant.account.charges) == 3


def test_without_a_card_token_the_first_charge_succeeds_and_renewals_fail(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.NO_TOKEN)
    merchant.account.fail(stand_in.NO_TOKEN, look_up=True)
    subscription = merchant.subscribe(plan={**PLAN, "number_payment_attempts": 1})
    merchant.advance("2min")
    assert (merchant.read(subscription)["state"], merchant.read(subscription)["card"]) == ("active", {})
    merchant.advance(A_PERIOD)
    read = merchant.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "failed")
    assert "no token" in read["last_transaction"]["message"]
    assert len(merchant.account.charges) == 1


def test_a_first_charge_that_never_arrived_ends_as_an_error(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.SILENT_BEFORE)
    subscription = merchant.subscribe()
    assert subscription["state"] == "getting_status"
    merchant.advance("10min")
    assert merchant.read(subscription)["state"] == "getting_status"
    merchant.advance("10min")
    read = merchant.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "error")


def test_a_renewal_that_never_arrived_is_retried(merchant: Merchant) -> None:
    subscription = merchant.subscribe()
    merchant.account.fail(stand_in.DROPPED_UNREAD)
    merchant.advance(A_PERIOD)
    merchant.advance("20min")
    read = merchant.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("rescuing", 1)
    merchant.advance("2h")
    read = merchant.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert merchant.statuses() == [(0, "successful"), (1, "error"), (1, "successful")]


def test_a_charge_of_another_amount_is_not_accepted(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.OTHER_AMOUNT)
    merchant.account.fail(*[stand_in.OTHER_AMOUNT] * 10, look_up=True)
    subscription = merchant.subscribe()
    merchant.advance("30min")
    assert merchant.read(subscription)["state"] == "getting_status"
    assert merchant.statuses() == [(0, "unknown")]
    merchant.advance("1d")  # the gateway works again
    assert merchant.read(subscription)["state"] == "active"


def test_a_server_killed_while_it_charges_finds_the_charge_afterwards(
    merchant: Merchant, new_database_url: Callable[[], str], tmp_path: Path, master_key: MasterKey, gateway_server: GatewayServer
) -> None:
    account = gateway_server.account()
    options = ("--sandbox", "--gateway-timeout-seconds", "5")
    with ServerProcess(new_database_url(), tmp_path, *options, environment=ENVIRONMENT) as process:
        shop_id, secret_key = with_gateway(process, master_key, account, gateway_server.url)
        account.fail(stand_in.SILENT_AFTER)
        with (
            httpx.Client(base_url=process.url, auth=(str(shop_id), secret_key), timeout=60) as http,
            ThreadPoolExecutor(1) as pool,
        ):
            here = Merchant(http, shop_id, account, process)
            lost = pool.submit(here.subscribe)
            eventually(lambda: account.taken)
            process.kill()
            with pytest.raises(httpx.TransportError):
                lost.result()
            process.start()
            (payment,) = here.payments()
            assert payment["status"] == "pending"
            end_leases(process.database)
            here.advance("5min")
            read = here.read({"id": payment["subscription_id"]})
            assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
            assert_records_agree(here)
            assert_no_secret_is_kept(here)


def test_a_clock_move_waits_for_a_charge_begun_by_another_process(merchant: Merchant) -> None:
    merchant.account.fail(stand_in.SILENT_AFTER)
    with ThreadPoolExecutor(1) as pool:
        subscribing = pool.submit(merchant.subscribe)
        eventually(lambda: merchant.account.taken)
        assert merchant.statuses() == [(0, "pending")]
        merchant.advance("1s")
        assert merchant.statuses() == [(0, "unknown")]
        assert subscribing.result()["state"] == "getting_status"
    merchant.advance("5min")
    assert merchant.statuses() == [(0, "successful")]
