"""A charge without an answer is found by a look-up and counted once."""

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
from support.gateway_shop import A_PERIOD, PLAN, Story, assert_no_secret_is_kept, assert_the_books_agree, with_gateway
from support.process import ServerProcess
from support.shops import ENVIRONMENT, with_database
from support.waiting import eventually


def end_leases(database_url: str) -> None:
    """As the two minutes do that they last."""

    async def end(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.run("UPDATE subscriptions SET leased_until = 0", {})

        await database.write(unit)

    with_database(database_url, end)


@pytest.mark.parametrize(
    "fault", [stand_in.SILENT_AFTER, stand_in.FAULT_502_AFTER, stand_in.DROPPED_HALFWAY, stand_in.OTHER_AMOUNT, stand_in.LATE]
)
def test_a_first_charge_whose_answer_was_lost_is_found_and_counted_once(story: Story, fault: str) -> None:
    story.account.fail(fault)
    subscription = story.subscribe()
    assert (subscription["state"], subscription["last_transaction"]["status"]) == ("getting_status", "incomplete")
    story.advance("2min")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 1)
    story.advance(A_PERIOD)
    assert story.statuses() == [(0, "successful"), (1, "successful")]


def test_a_renewal_whose_answer_was_lost_is_found_and_counted_once(story: Story) -> None:
    subscription = story.subscribe()
    story.account.fail(stand_in.SILENT_AFTER, stand_in.FAULT_500_AFTER)
    story.account.fail(stand_in.SILENT_BEFORE, stand_in.FAULT_502_BEFORE, stand_in.NO_JSON, look_up=True)
    story.advance(A_PERIOD)
    story.advance("1h")
    assert story.read(subscription)["state"] == "active"
    story.advance(A_PERIOD)
    story.advance("1h")
    assert story.read(subscription)["paid_billing_cycles"] == 3
    assert len(story.account.charges) == 3


def test_a_gateway_that_gives_no_token_is_paid_once_and_its_renewals_fail(story: Story) -> None:
    story.account.fail(stand_in.NO_TOKEN)
    story.account.fail(stand_in.NO_TOKEN, look_up=True)
    subscription = story.subscribe(plan={**PLAN, "number_payment_attempts": 1})
    story.advance("2min")
    assert (story.read(subscription)["state"], story.read(subscription)["card"]) == ("active", {})
    story.advance(A_PERIOD)
    read = story.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "failed")
    assert "no token" in read["last_transaction"]["message"]
    assert len(story.account.charges) == 1


def test_a_first_charge_that_never_arrived_ends_as_an_error(story: Story) -> None:
    story.account.fail(stand_in.SILENT_BEFORE)
    subscription = story.subscribe()
    assert subscription["state"] == "getting_status"
    story.advance("10min")
    assert story.read(subscription)["state"] == "getting_status"
    story.advance("10min")
    read = story.read(subscription)
    assert (read["state"], read["last_transaction"]["status"]) == ("failed", "error")


def test_a_renewal_that_never_arrived_is_tried_again(story: Story) -> None:
    subscription = story.subscribe()
    story.account.fail(stand_in.DROPPED_UNREAD)
    story.advance(A_PERIOD)
    story.advance("20min")
    read = story.read(subscription)
    assert (read["state"], read["number_failed_payment_attempts"]) == ("rescuing", 1)
    story.advance("2h")
    read = story.read(subscription)
    assert (read["state"], read["paid_billing_cycles"]) == ("active", 2)
    assert story.statuses() == [(0, "successful"), (1, "error"), (1, "successful")]


def test_a_gateway_that_took_another_amount_is_never_believed(story: Story) -> None:
    story.account.fail(stand_in.OTHER_AMOUNT)
    story.account.fail(*[stand_in.OTHER_AMOUNT] * 10, look_up=True)
    subscription = story.subscribe()
    story.advance("30min")
    assert story.read(subscription)["state"] == "getting_status"
    assert story.statuses() == [(0, "unknown")]
    story.advance("1d")  # the gateway has come to its senses
    assert story.read(subscription)["state"] == "active"


def test_a_server_killed_while_it_charges_finds_the_charge_afterwards(
    story: Story, new_database_url: Callable[[], str], tmp_path: Path, master_key: MasterKey, gateway_server: GatewayServer
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
            here = Story(http, shop_id, account, process)
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
            assert_the_books_agree(here)
            assert_no_secret_is_kept(here)


def test_the_clock_waits_for_a_charge_that_somebody_else_has_begun(story: Story) -> None:
    story.account.fail(stand_in.SILENT_AFTER)
    with ThreadPoolExecutor(1) as pool:
        subscribing = pool.submit(story.subscribe)
        eventually(lambda: story.account.taken)
        assert story.statuses() == [(0, "pending")]
        story.advance("1s")
        assert story.statuses() == [(0, "unknown")]
        assert subscribing.result()["state"] == "getting_status"
    story.advance("5min")
    assert story.statuses() == [(0, "successful")]
