"""Shops and their keys in the database."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError, RecordNotFound
from ecomcharge.shops import actions, store
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database
from support.shops import add_shop, with_database


def test_the_database_contains_no_key_in_plain_text(database_url: str, master_key: MasterKey) -> None:
    credentials = add_shop(database_url, master_key, secret_key="own-sandbox-key", sandbox=True)

    async def everything(database: Database) -> str:
        return str([tuple(row) for row in await database.rows("SELECT * FROM shop_keys", {})])

    stored = with_database(database_url, everything)
    assert str(credentials.shop_id) in stored
    assert "own-sandbox-key" not in stored
    assert base64.b64encode(b"own-sandbox-key").decode() not in stored


@pytest.mark.parametrize(
    ("key", "fault"),
    [("short", "too short"), ("a" * 256, "too long"), ("schlüssel", "printable ASCII"), ("a\tbcdefgh", "printable ASCII")],
)
def test_a_chosen_key_must_be_valid_in_http_basic(database_url: str, master_key: MasterKey, key: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        add_shop(database_url, master_key, secret_key=key, sandbox=True)


@pytest.mark.parametrize(("length", "sandbox", "is_accepted"), [(31, False, False), (32, False, True), (8, True, True)])
def test_a_chosen_key_is_long_outside_sandboxes(
    database_url: str, master_key: MasterKey, length: int, sandbox: bool, is_accepted: bool
) -> None:
    def add() -> int:
        return len(add_shop(database_url, master_key, secret_key="k" * length, sandbox=sandbox).secret_key)

    if is_accepted:
        assert add() == length
    else:
        with pytest.raises(ConfigurationError, match="minimum is 32 characters, or 8 with --sandbox"):
            add()


@pytest.mark.parametrize("chosen", [{"shop_id": 0}, {"shop_id": 2**53}, {"name": " "}, {"name": "a" * 256}, {"name": "a\nb"}])
def test_an_invalid_shop_is_refused(database_url: str, master_key: MasterKey, chosen: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        add_shop(database_url, master_key, **chosen)


def test_a_rotation_expires_older_keys_after_the_overlap_and_extends_none(database_url: str, master_key: MasterKey) -> None:
    now = SystemClock().now()

    async def work(database: Database) -> list[int | None]:
        first = await actions.create_shop(database, master_key, now, name="Test", secret_key="first-key", sandbox=True)
        for key, overlap in (("second-key", 10), ("third-key", 3600)):
            await actions.rotate_key(
                *(database, master_key, now), shop_id=first.shop_id, secret_key=key, sandbox=True, overlap_seconds=overlap
            )
        kept = {key.key_hash: key.expires_at for key in await store.keys_of_open_shop(database, first.shop_id)}
        return [kept[master_key.hash(first.shop_id, key)] for key in ("first-key", "second-key", "third-key")]

    assert with_database(database_url, work) == [now + 10_000, now + 3_600_000, None]


def test_a_closed_or_unknown_shop_gets_no_new_key(database_url: str, master_key: MasterKey) -> None:
    shop_id = add_shop(database_url, master_key).shop_id
    now = SystemClock().now()

    async def work(database: Database) -> None:
        await actions.close_shop(database, now, shop_id=shop_id)
        await actions.close_shop(database, now + 1, shop_id=shop_id)
        assert [shop.closed_at for shop in await store.all_shops(database)] == [now]
        assert not await store.keys_of_open_shop(database, shop_id)
        for unknown in (shop_id, 7):
            with pytest.raises(RecordNotFound):
                await actions.rotate_key(database, master_key, now, shop_id=unknown)

    with_database(database_url, work)
