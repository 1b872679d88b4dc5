"""The client of a real gateway against a stand-in that sends documented responses and every known error."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from ecomcharge.gateways import base, begateway
from ecomcharge.gateways.base import CardDetails, Order, Result
from ecomcharge.gateways.begateway import BegatewayGateway
from support import begateway as stand_in
from support.begateway import Account, GatewayServer, refusing_address

T = TypeVar("T")

NOW = 1_790_000_000_000
TIMEOUT_SECONDS = 0.5
NUMBER = "4200000000000000"
CODE = "7391"
CARD = CardDetails(NUMBER, CODE, "John Doe", 1, 2030)
CHALLENGED = replace(CARD, number=stand_in.CHALLENGED[0])
DECLINED = replace(CARD, number=stand_in.DECLINED[0])


@pytest.fixture(scope="module")
def gateway_server() -> Iterator[GatewayServer]:
    with GatewayServer() as server:
        yield server


@pytest.fixture
def account(gateway_server: GatewayServer) -> Account:
    return gateway_server.account()


@pytest.fixture
def ask(gateway_server: GatewayServer, account: Account) -> Callable[[Callable[[BegatewayGateway], Awaitable[T]]], T]:
    """Run ``work`` with a client of the account."""

    def run(work: Callable[[BegatewayGateway], Awaitable[T]]) -> T:
        return with_client(gateway_server.url, account.user, account.secret_key, work)

    return run


def with_client(url: str, user: str, secret_key: str, work: Callable[[BegatewayGateway], Awaitable[T]]) -> T:
    async def run() -> T:
        async with begateway.shared_client(TIMEOUT_SECONDS) as client:
            return await work(BegatewayGateway(client, url, user, secret_key, TIMEOUT_SECONDS))

    return asyncio.run(run())


def an_order(**changes: Any) -> Order:
    order = Order(
        id=str(uuid.uuid4()),
        shop_id=1,
        amount=999,
        currency="EUR",
        description="Subscription. Main period: €9.99 each 1 month.",
        test=False,
        language="en",
        return_url="https://pay.example/process/1",
        customer={"ip": "127.0.0.1", "email": "john@example.com", "first_name": "John", "city": None},
    )
    return replace(order, **changes)


def look_up(gateway: BegatewayGateway, order: Order) -> Awaitable[Result | None]:
    return gateway.look_up(order.shop_id, order.id, NOW, amount=order.amount, currency=order.currency)


Ask = Callable[[Callable[[BegatewayGateway], Awaitable[Any]]], Any]


def test_a_charge_request_is_as_documented(ask: Ask, account: Account) -> None:
    order = an_order(descriptor="SHOP")
    ask(lambda gateway: gateway.charge(order, CARD, NOW))
    (seen,) = account.charges
    assert seen.path == "/transactions/payments"
    assert seen.headers["x-api-version"] == "3"
    assert seen.headers["requestid"] == order.id
    assert seen.body["request"] == {
        "amount": 999,
        "currency": "EUR",
        "description": order.description,
        "tracking_id": order.id,
        "duplicate_check": False,
        "language": "en",
        "test": False,
        "credit_card": {
            "number": NUMBER,
            "verification_value": CODE,
            "holder": "John Doe",
            "exp_month": "01",
            "exp_year": "2030",
        },
        "additional_data": {"contract": ["recurring"]},
        "customer": {"ip": "127.0.0.1", "email": "john@example.com"},
        "billing_address": {"first_name": "John"},
        "dynamic_billing_descriptor": "SHOP",
        "return_url": "https://pay.example/process/1",
        "expired_at": "2026-09-22T14:13:20.000Z",
    }


def test_a_charge_result_includes_the_card(ask: Ask, account: Account) -> None:
    result = ask(lambda gateway: gateway.charge(an_order(), CARD, NOW))
    assert (result.status, result.message) == (base.SUCCESSFUL, "Successfully processed")
    assert result.uid == account.transactions[0].uid
    card = result.card
    assert (card.brand, card.last_4, card.first_1, card.bin) == ("visa", "0000", "4", "420000")
    assert (card.exp_month, card.exp_year, card.issuer_country, card.product) == (1, 2030, "US", "F")
    assert card.token == account.transactions[0].card["token"]


def test_a_renewal_charges_the_token_and_skips_3_d_secure(ask: Ask, account: Account) -> None:
    first = ask(lambda gateway: gateway.charge(an_order(), CHALLENGED, NOW))
    result = ask(lambda gateway: gateway.charge(an_order(recurring=True), first.card.token, NOW))
    assert result.status == base.SUCCESSFUL
    request = account.charges[1].body["request"]
    assert request["credit_card"] == {"token": first.card.token, "skip_three_d_secure_verification": True}
    assert request["additional_data"] == {"contract": ["recurring"]}
    assert not {"return_url", "expired_at"} & set(request)


def test_a_declined_charge_failed(ask: Ask) -> None:
    result = ask(lambda gateway: gateway.charge(an_order(), DECLINED, NOW))
    assert (result.status, result.message) == (base.FAILED, "Payment was declined")


def test_3_d_secure_is_returned_with_its_whole_address(ask: Ask, account: Account, gateway_server: GatewayServer) -> None:
    order = an_order()
    result = ask(lambda gateway: gateway.charge(order, CHALLENGED, NOW))
    assert result.status == base.INCOMPLETE
    assert result.redirect_url == f"{gateway_server.url}/process/{result.uid}?{stand_in.LONG_QUERY}"
    assert ask(lambda gateway: look_up(gateway, order)).status == base.INCOMPLETE
    account.transactions[0].status = "successful"
    assert ask(lambda gateway: look_up(gateway, order)).status == base.SUCCESSFUL


def test_a_free_trial_verifies_the_card_without_a_charge(ask: Ask, account: Account) -> None:
    order = an_order(amount=0)
    result = ask(lambda gateway: gateway.charge(order, CARD, NOW))
    assert result.status == base.SUCCESSFUL
    assert result.card.token
    assert account.charges[0].path == "/transactions/tokenizations"
    assert account.taken == []
    assert ask(lambda gateway: look_up(gateway, order)).status == base.SUCCESSFUL


def test_an_order_that_is_sent_twice_is_charged_once(ask: Ask, account: Account) -> None:
    order = an_order()

    async def twice(gateway: BegatewayGateway) -> list[Result]:
        return list(await asyncio.gather(gateway.charge(order, CARD, NOW), gateway.charge(order, CARD, NOW)))

    first, second = ask(twice)
    assert first == second
    assert account.taken == [(order.id, 999, "EUR")]


@pytest.mark.parametrize("fault", stand_in.WITH_CHARGE)
def test_a_lost_charge_response_is_unknown_and_a_lookup_finds_the_charge(ask: Ask, account: Account, fault: str) -> None:
    order = an_order()
    account.fail(fault)
    assert ask(lambda gateway: gateway.charge(order, CARD, NOW)).status == base.UNKNOWN
    found = ask(lambda gateway: look_up(gateway, order))
    assert (found.status, found.uid) == (base.SUCCESSFUL, account.transactions[0].uid)
    assert found.card.token
    assert account.taken == [(order.id, 999, "EUR")]


@pytest.mark.parametrize("fault", stand_in.WITHOUT_CHARGE)
def test_a_lost_charge_request_is_unknown_and_a_lookup_finds_no_charge(ask: Ask, account: Account, fault: str) -> None:
    order = an_order()
    account.fail(fault)
    assert ask(lambda gateway: gateway.charge(order, CARD, NOW)).status == base.UNKNOWN
    assert ask(lambda gateway: look_up(gateway, order)) is None
    assert account.taken == []


@pytest.mark.parametrize("fault", stand_in.REFUSED)
def test_a_refused_request_is_an_error(ask: Ask, account: Account, fault: str) -> None:
    account.fail(fault)
    result = ask(lambda gateway: gateway.charge(an_order(), CARD, NOW))
    assert result.status == base.ERROR
    assert result.message
    assert NUMBER not in result.message
    assert CODE not in result.message
    assert account.taken == []


def test_the_message_of_a_refusal_is_kept(ask: Ask, account: Account) -> None:
    account.fail(stand_in.UNPROCESSABLE)
    assert ask(lambda gateway: gateway.charge(an_order(), CARD, NOW)).message == "Ip can't be blank"


def test_a_refused_connection_is_an_error_for_a_charge_and_unknown_for_a_lookup() -> None:
    with refusing_address() as url:
        assert with_client(url, "1", "x", lambda gateway: gateway.charge(an_order(), CARD, NOW)).status == base.ERROR
        found = with_client(url, "1", "x", lambda gateway: look_up(gateway, an_order()))
        assert found is not None
        assert found.status == base.UNKNOWN


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b", "http://x:99999", "ftp://x", "http://no.such.invalid"])
def test_an_unresolvable_address_is_an_error(url: str) -> None:
    assert with_client(url, "1", "x", lambda gateway: gateway.charge(an_order(), CARD, NOW)).status == base.ERROR


def test_a_wrong_key_is_an_error_and_finds_nothing(gateway_server: GatewayServer, account: Account) -> None:
    def asked(work: Callable[[BegatewayGateway], Awaitable[Any]]) -> Any:
        return with_client(gateway_server.url, account.user, "wrong", work)

    assert asked(lambda gateway: gateway.charge(an_order(), CARD, NOW)).status == base.ERROR
    assert asked(lambda gateway: look_up(gateway, an_order())).status == base.UNKNOWN


@pytest.mark.parametrize(
    "fault",
    [
        *(fault for fault in stand_in.WITH_CHARGE if fault != stand_in.NO_TOKEN),
        *stand_in.WITHOUT_CHARGE,
        *stand_in.REFUSED[:3],
        stand_in.LOST_PROXY,
    ],
)
def test_a_failed_lookup_leaves_the_charge_unknown(ask: Ask, account: Account, fault: str) -> None:
    order = an_order()
    ask(lambda gateway: gateway.charge(order, CARD, NOW))
    account.fail(fault, look_up=True)
    assert ask(lambda gateway: look_up(gateway, order)).status == base.UNKNOWN


def test_transactions_of_an_order_rank_successful_then_open_then_failed(ask: Ask, account: Account) -> None:
    order = an_order()
    ask(lambda gateway: gateway.charge(order, DECLINED, NOW))
    (failed,) = account.transactions
    opened = replace(failed, uid="open", status="incomplete")
    account.transactions.append(opened)
    assert ask(lambda gateway: look_up(gateway, order)).status == base.INCOMPLETE
    account.transactions.append(replace(failed, uid="paid", status="successful"))
    assert ask(lambda gateway: look_up(gateway, order)).uid == "paid"


def test_a_refund_of_an_order_is_not_its_payment(ask: Ask, account: Account) -> None:
    order = an_order()
    ask(lambda gateway: gateway.charge(order, DECLINED, NOW))
    account.transactions.append(replace(account.transactions[0], uid="refund", kind="refund", status="successful"))
    assert ask(lambda gateway: look_up(gateway, order)).status == base.FAILED


ANY_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats(allow_nan=False) | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("uid", "status", "message", "redirect_url", "credit_card", "type", "tracking_id", "amount", "currency")
CARD_NAMES = ("token", "stamp", "brand", "exp_month", "exp_year", "holder", "bin")


@hypothesis.given(
    transaction=strategies.dictionaries(strategies.sampled_from(NAMES), ANY_JSON),
    card=ANY_JSON | strategies.dictionaries(strategies.sampled_from(CARD_NAMES), ANY_JSON | strategies.text(min_size=1)),
    status=strategies.sampled_from(["successful", "failed", "incomplete", "error", "pending"]),
)
def test_any_transaction_response_is_read_as_values_that_can_be_stored(
    transaction: dict[str, Any], card: Any, status: str
) -> None:
    result = begateway._result({"status": status, "credit_card": card, **transaction})
    assert result.status in (base.SUCCESSFUL, base.FAILED, base.INCOMPLETE, base.ERROR, base.UNKNOWN)
    kept = msgspec.json.encode(result)
    assert b"\\u0000" not in kept


def test_representations_logs_and_errors_contain_no_card_and_no_key(
    gateway_server: GatewayServer, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # httpx logs every request at this level
    for fault in (stand_in.NO_JSON, stand_in.DROPPED_UNREAD, stand_in.SILENT_BEFORE, stand_in.ECHOES_NUMBER):
        account.fail(fault)

        async def charge(gateway: BegatewayGateway) -> str:
            return repr(await gateway.charge(an_order(), CARD, NOW)) + repr(gateway) + repr(vars(gateway))

        exposed = with_client(gateway_server.url, account.user, account.secret_key, charge) + repr(CARD) + caplog.text
        assert NUMBER not in exposed
        assert account.secret_key not in exposed
        assert "verification_value" not in exposed
        assert CODE not in repr(CARD)
