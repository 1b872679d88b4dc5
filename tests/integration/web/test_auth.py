"""Authentication against the database."""

from __future__ import annotations

import base64

import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import Unauthorized
from ecomcharge.shops import actions
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from ecomcharge.web.auth import Authenticator
from ecomcharge.web.messages import Request
from ecomcharge.web.rate_limits import AddressRateLimiter, ClientAddresses
from support.authentication import Caller
from support.shops import with_database


def test_a_new_key_is_accepted_while_the_old_one_is_in_use(database_url: str, master_key: MasterKey) -> None:
    async def work(database: Database) -> list[bool]:
        now = SystemClock().now()
        shop = await actions.create_shop(database, master_key, now, name="Test", secret_key="first-key")
        moments = [0.0]
        authenticator = Authenticator(
            database, master_key, SystemClock(), AddressRateLimiter("failed-logins", 60, ClientAddresses("")), lambda: moments[-1]
        )
        outcomes = [await authenticator.shop_of(login(shop.shop_id, "first-key"))]
        await actions.rotate_key(database, master_key, now, shop_id=shop.shop_id, secret_key="second-key", overlap_seconds=60)
        for moment in (0.6, 0.7):
            moments.append(moment)
            outcomes += [await authenticator.shop_of(login(shop.shop_id, key)) for key in ("first-key", "second-key")]
        with pytest.raises(Unauthorized):
            await authenticator.shop_of(login(shop.shop_id, "third-key"))
        return [outcome == shop.shop_id for outcome in outcomes]

    assert all(with_database(database_url, work))


def login(shop_id: int, key: str) -> Request:
    return Caller({"authorization": "Basic " + base64.b64encode(f"{shop_id}:{key}".encode()).decode()})
