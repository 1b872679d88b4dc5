"""Authentication against the database."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable

import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import TooManyRequests, Unauthorized
from ecomcharge.shops import actions
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.web.auth import Authenticator
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import AddressRateLimiter, ClientAddresses, EventLimiter
from support.authentication import Caller
from support.shops import with_database


def test_a_new_key_is_accepted_while_the_old_one_is_in_use(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> list[bool]:
        now = SystemClock().now()
        shop = await actions.create_shop(database, master_key, now, name="Test", secret_key="first-key", sandbox=True)
        moments = [0.0]
        authenticator = _authenticator(database, master_key, lambda: moments[-1])
        outcomes = [await authenticator.shop_of(login(shop.shop_id, "first-key"))]
        await actions.rotate_key(
            *(database, master_key, now), shop_id=shop.shop_id, secret_key="second-key", sandbox=True, overlap_seconds=60
        )
        for moment in (0.6, 0.7):
            moments.append(moment)
            outcomes += [await authenticator.shop_of(login(shop.shop_id, key)) for key in ("first-key", "second-key")]
        with pytest.raises(Unauthorized):
            await authenticator.shop_of(login(shop.shop_id, "third-key"))
        return [outcome == shop.shop_id for outcome in outcomes]

    assert all(with_database(database_url, work))


def test_above_the_limit_of_a_shop_a_right_guess_is_not_verified_and_keys_in_use_are_accepted(
    database_url: str, master_key: MasterKey
) -> None:
    async def work(database: Database) -> None:
        now = SystemClock().now()
        weak = await actions.create_shop(database, master_key, now, name="Test", secret_key="weak-key", sandbox=True)
        used = await actions.create_shop(database, master_key, now, name="Test", secret_key="used-key", sandbox=True)
        generated = await actions.create_shop(database, master_key, now, name="Test")
        moments = [0.0]
        authenticator = _authenticator(database, master_key, lambda: moments[-1], per_shop=3)
        assert await authenticator.shop_of(login(used.shop_id, "used-key")) == used.shop_id
        for shop in (weak, used, generated):
            for number in range(3):
                with pytest.raises(Unauthorized):
                    await authenticator.shop_of(login(shop.shop_id, f"guess-{number}", f"10.0.{number}.1"))
        with pytest.raises(TooManyRequests):
            await authenticator.shop_of(login(weak.shop_id, "weak-key", "10.0.9.1"))
        moments.append(30.0)  # the cached credentials are verified again
        assert await authenticator.shop_of(login(used.shop_id, "used-key", "10.0.9.1")) == used.shop_id
        assert await authenticator.shop_of(login(generated.shop_id, generated.secret_key, "10.0.9.1")) == generated.shop_id
        moments.append(61.0)
        assert await authenticator.shop_of(login(weak.shop_id, "weak-key", "10.0.9.1")) == weak.shop_id

    with_database(database_url, work)


def test_concurrent_guesses_are_counted_before_they_are_verified(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> Counter[type]:
        shop = await actions.create_shop(database, master_key, SystemClock().now(), name="Test")
        authenticator = _authenticator(database, master_key, lambda: 0.0, per_address=5)
        guesses = [authenticator.shop_of(login(shop.shop_id, f"guess-{number}")) for number in range(100)]
        return Counter(type(outcome) for outcome in await asyncio.gather(*guesses, return_exceptions=True))

    assert with_database(database_url, work) == {Unauthorized: 5, TooManyRequests: 95}


def test_concurrent_first_requests_with_one_valid_key_are_one_guess(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> Counter[object]:
        now = SystemClock().now()
        shop = await actions.create_shop(database, master_key, now, name="Test", secret_key="weak-key", sandbox=True)
        authenticator = _authenticator(database, master_key, lambda: 0.0, per_address=5)
        right = [authenticator.shop_of(login(shop.shop_id, "weak-key")) for _ in range(100)]
        wrong = [authenticator.shop_of(login(shop.shop_id, "wrong-key", "10.0.0.2")) for _ in range(100)]
        outcomes = await asyncio.gather(*right, *wrong, return_exceptions=True)
        return Counter("shop" if outcome == shop.shop_id else type(outcome) for outcome in outcomes)

    assert with_database(database_url, work) == {"shop": 100, Unauthorized: 5, TooManyRequests: 95}


def test_many_spellings_of_the_same_credentials_take_no_memory(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> tuple[int, int]:
        shop = await actions.create_shop(database, master_key, SystemClock().now(), name="Test")
        authenticator = _authenticator(database, master_key, lambda: 0.0)
        usual = login(shop.shop_id, shop.secret_key)
        encoded = (usual.header("authorization") or "").removeprefix("Basic ")
        spellings = [Caller({"authorization": f"bAsIc{' ' * number}{encoded}"}) for number in range(1, 3_000)]
        assert {await authenticator.shop_of(request) for request in (usual, *spellings)} == {shop.shop_id}
        return len(authenticator._logins), len(authenticator._by_header)

    assert with_database(database_url, work) == (1, 1)


def test_a_revoked_key_is_forgotten(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> tuple[int, int]:
        now = SystemClock().now()
        shop = await actions.create_shop(database, master_key, now, name="Test")
        moments = [0.0]
        authenticator = _authenticator(database, master_key, lambda: moments[-1])
        assert await authenticator.shop_of(login(shop.shop_id, shop.secret_key)) == shop.shop_id
        await actions.rotate_key(database, master_key, now, shop_id=shop.shop_id)
        moments.append(4.5)
        with pytest.raises(Unauthorized):
            await authenticator.shop_of(login(shop.shop_id, shop.secret_key))
        return len(authenticator._logins), len(authenticator._by_header)

    assert with_database(database_url, work) == (0, 0)


def _authenticator(
    database: Database, master_key: MasterKey, monotonic: Callable[[], float], per_address: int = 60, per_shop: int = 300
) -> Authenticator:
    guesses = AddressRateLimiter("failed-logins", per_address, ClientAddresses(""))
    guesses_of_shop = EventLimiter("failed-logins-shop", per_shop, monotonic=monotonic)
    return Authenticator(database, master_key, SystemClock(), guesses, guesses_of_shop, monotonic)


def login(shop_id: int, key: str, address: str = "10.0.0.1") -> Request:
    return Caller({"authorization": "Basic " + base64.b64encode(f"{shop_id}:{key}".encode()).decode()}, address)
