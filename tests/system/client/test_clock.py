"""The sandbox clock through the client, blocking and asynchronous."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import ecomcharge
from ecomcharge import NewCard, NewCustomer, NewPlan, Price
from support.client import Connect, as_shop
from support.shops import Shop

BASIC = NewPlan(title="Basic", currency="EUR", plan=Price(999, 1, "day"))
DECLINED_LATER = NewCard(number="4111110000000047", exp_month=1, exp_year=2099)
CARD = NewCard(number="4200000000000000", exp_month=1, exp_year=2099)
JOHN = NewCustomer(email="john@shop.test")


def test_the_clock_is_frozen_set_moved_and_resumed(sandbox: Shop, connect: Connect) -> None:
    with as_shop(connect, sandbox) as client:
        frozen = client.freeze_clock()
        assert frozen.frozen
        assert client.get_clock() == frozen
        start = frozen.now + timedelta(hours=1)
        assert client.set_clock(start).to_time == start
        move = client.advance_clock("36h")
        assert (move.from_time, move.to_time, move.now) == (start, start + timedelta(hours=36), start + timedelta(hours=36))
        assert client.get_clock_move(move.id) == move
        assert client.set_clock("2026-01-01T00:00:00Z").done
        assert client.get_clock().now == datetime(2026, 1, 1, tzinfo=UTC)
        assert not client.resume_clock().frozen


def test_the_renewals_of_a_move_are_done_when_it_returns(sandbox: Shop, connect: Connect) -> None:
    with as_shop(connect, sandbox) as client:
        client.freeze_clock()
        subscription = client.create_subscription(BASIC, customer=JOHN, card=CARD)
        move = client.wait_for_clock(client.start_clock_move(step="3d"))
        assert (move.done, move.error) == (True, None)
        assert client.get_subscription(subscription.id).paid_billing_cycles == 4
        renewals = list(client.events(object=subscription.id, type="renewed.subscription"))
        assert [event.sequence for event in renewals] == [4, 3, 2]
        assert all(event.subscription and event.subscription.state == "active" for event in renewals)
        client.resume_clock()


def test_a_failed_charge_has_the_time_of_its_next_attempt(sandbox: Shop, connect: Connect) -> None:
    with as_shop(connect, sandbox) as client:
        client.freeze_clock()
        client.set_clock("2027-03-01T12:00:00Z")
        subscription = client.create_subscription(BASIC, customer=JOHN, card=DECLINED_LATER)
        client.advance_clock("1d")
        failing = client.get_subscription(subscription.id)
        assert (failing.state, failing.renew_at) == ("failed_attempt", datetime(2027, 3, 2, 12, tzinfo=UTC))
        assert failing.next_attempt_at == datetime(2027, 3, 3, 3, tzinfo=UTC)
        client.resume_clock()


def test_an_invalid_step_or_time_is_refused(sandbox: Shop, connect: Connect) -> None:
    with as_shop(connect, sandbox) as client:
        with pytest.raises(ecomcharge.ApiError, match="Step must be") as caught:
            client.advance_clock("soon")
        assert caught.value.status == 400
        with pytest.raises(ValueError, match="time zone"):
            client.set_clock(datetime(2027, 1, 1))
        with pytest.raises(ValueError, match="either"):
            client.start_clock_move()


def test_a_server_without_a_sandbox_has_no_clock(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client, pytest.raises(ecomcharge.NotFoundError):
        client.get_clock()


def test_the_client_waits_until_the_server_is_ready(server: Shop, connect: Connect) -> None:
    with as_shop(connect, server) as client:
        client.wait_until_ready()
    with as_shop(connect, server, "http://127.0.0.1:1") as client, pytest.raises(ecomcharge.TransportError):
        client.wait_until_ready(timeout_seconds=0.3)
