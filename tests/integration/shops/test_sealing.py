"""Rotation and loss of the master key."""

from __future__ import annotations

import base64

import pytest

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.shops import actions, store
from ecomcharge.shops.keys import MasterKey
from ecomcharge.shops.model import GATEWAY_KEY_PURPOSE, GatewayAccount
from ecomcharge.shops.sealing import Resealed, gateway_key_of, reseal, reset_key
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.webhooks.outbox import signing_key_of
from support.commands import ecomcharge
from support.shops import add_shop, with_database

OLD, NEW, LOST = bytes(32), bytes(range(32)), bytes(range(1, 33))
BEFORE, BOTH, AFTER = MasterKey(OLD), MasterKey(NEW, OLD), MasterKey(NEW)
ACCOUNT = {"gateway": "begateway", "url": "https://gateway.example", "user": "361", "secret_key": "gateway secret"}


async def _set_up(database: Database, master_key: MasterKey) -> tuple[int, str, str]:
    """A shop with an account, two keys and a signing key: its id, its newest key, and its public key."""
    made = await actions.create_shop(database, master_key, 1, name="Test")
    newest = await actions.rotate_key(database, master_key, 2, shop_id=made.shop_id, overlap_seconds=3600)
    await actions.set_gateway(database, master_key, 3, shop_id=made.shop_id, **ACCOUNT)
    return made.shop_id, newest.secret_key, (await signing_key_of(database, master_key, made.shop_id)).public_text()


async def _gateway_key(database: Database, master_key: MasterKey, shop_id: int) -> str:
    account = await store.find_account(database, shop_id, "1")
    assert account is not None
    return gateway_key_of(master_key, shop_id, account)


def test_a_rotation_seals_every_secret_under_the_first_key(database_url: str) -> None:
    async def work(database: Database) -> None:
        shop_id, secret_key, public_key = await _set_up(database, BEFORE)
        lost, _, _ = await _set_up(database, MasterKey(LOST))
        assert await reseal(database, BOTH) == Resealed(2, 1, 1, unreadable=(lost,))
        assert await reseal(database, BOTH) == Resealed(unreadable=(lost,))

        hashes = [key.key_hash for key in await store.keys_of_open_shop(database, shop_id)]
        assert AFTER.hash(shop_id, secret_key) in hashes
        assert BEFORE.hash(shop_id, secret_key) not in hashes
        assert len(hashes) == 2
        assert await _gateway_key(database, AFTER, shop_id) == "gateway secret"
        assert (await signing_key_of(database, AFTER, shop_id)).public_text() == public_key
        with pytest.raises(ConfigurationError):
            await _gateway_key(database, BEFORE, shop_id)

    with_database(database_url, work)


def test_a_gateway_key_cannot_be_used_at_another_address(database_url: str) -> None:
    """An earlier release bound it to the shop only: a rotation, with one key too, binds it."""

    async def work(database: Database) -> None:
        shop_id, _, _ = await _set_up(database, AFTER)
        account = await store.find_account(database, shop_id, "1")
        assert account is not None
        earlier = {"shop_id": shop_id, "sealed": AFTER.seal(shop_id, "gateway secret", GATEWAY_KEY_PURPOSE)}
        await database.write(lambda tx: tx.run("UPDATE gateway_accounts SET sealed_key = :sealed", earlier))
        assert await _gateway_key(database, AFTER, shop_id) == "gateway secret"
        assert (await reseal(database, AFTER)).gateway_keys == 1
        await database.write(lambda tx: tx.run("UPDATE gateway_accounts SET url = :url", {"url": "https://thief.example"}))
        with pytest.raises(ConfigurationError):
            await _gateway_key(database, AFTER, shop_id)

    with_database(database_url, work)


def test_a_gateway_key_that_changes_during_a_rotation_is_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(database: Database) -> None:
        shop_id, _, _ = await _set_up(database, BEFORE)
        read_before = await store.accounts(database, shop_id)
        await actions.set_gateway(database, BOTH, 4, shop_id=shop_id, **{**ACCOUNT, "secret_key": "new secret"})

        async def accounts(tx: Transaction, shop_id: int) -> list[GatewayAccount]:
            return read_before

        monkeypatch.setattr(store, "accounts", accounts)
        assert (await reseal(database, BOTH)).gateway_keys == 0
        assert await _gateway_key(database, AFTER, shop_id) == "new secret"

    with_database(database_url, work)


def test_an_account_of_the_previous_release_is_kept_by_a_rotation(database_url: str) -> None:
    async def work(database: Database) -> None:
        made = await actions.create_shop(database, BEFORE, 1, name="Test")
        params = {"sealed": BEFORE.seal(made.shop_id, "gateway secret", GATEWAY_KEY_PURPOSE)}
        params["url"] = "https://g.example"
        sql = "UPDATE shops SET gateway = 'begateway', gateway_url = :url, gateway_user = '361', sealed_gateway_key = :sealed"
        await database.write(lambda tx: tx.run(sql, params))
        assert (await reseal(database, BOTH)).gateway_keys == 1
        assert await _gateway_key(database, AFTER, made.shop_id) == "gateway secret"
        assert (await store.gateway_choice(database, made.shop_id)).account == "1"
        assert await database.rows("SELECT 1 FROM shops WHERE sealed_gateway_key IS NOT NULL", {}) == []

    with_database(database_url, work)


def test_after_a_loss_of_the_master_key_shops_get_new_keys_one_by_one(database_url: str) -> None:
    async def work(database: Database) -> None:
        shop_id, _, public_key = await _set_up(database, MasterKey(LOST))
        other, _, _ = await _set_up(database, MasterKey(LOST))
        with pytest.raises(ConfigurationError):
            await actions.check_master_key(database, AFTER)
        reset = await reset_key(database, AFTER, 4, shop_id=shop_id)
        assert [(account.url, account.user) for account in reset.lost] == [("https://gateway.example", "361")]
        await actions.check_master_key(database, AFTER)  # servers start, although the other shop has no new key yet
        hashes = [key.key_hash for key in await store.keys_of_open_shop(database, shop_id)]
        assert hashes == [AFTER.hash(shop_id, reset.credentials.secret_key)]
        assert (await signing_key_of(database, AFTER, shop_id)).public_text() != public_key
        resealed = await reseal(database, AFTER)  # the account needs its key, and not another reset of the shop
        assert resealed.unreadable == (other,)
        assert [(shop, account.id) for shop, account in resealed.lost_accounts] == [(shop_id, "1")]
        await actions.set_gateway(database, AFTER, 5, shop_id=shop_id, **ACCOUNT)
        assert await _gateway_key(database, AFTER, shop_id) == "gateway secret"
        with pytest.raises(ConfigurationError, match="rotate-key"):
            await reset_key(database, AFTER, 6, shop_id=shop_id)
        assert await reseal(database, AFTER) == Resealed(unreadable=(other,))

    with_database(database_url, work)


def test_the_commands_of_a_rotation_and_of_a_loss(database_url: str) -> None:
    old, new, lost = (base64.b64encode(key).decode() for key in (OLD, NEW, LOST))
    shop = add_shop(database_url, BEFORE).shop_id
    rotated = ecomcharge(database_url, "master-key", "rotate", environment={"ECOMCHARGE_MASTER_KEY": f"{new} {old}"})
    assert (rotated.returncode, "1 shop keys" in rotated.stdout, "remove the others" in rotated.stdout) == (0, True, True)
    refused = ecomcharge(database_url, "master-key", "rotate", environment={"ECOMCHARGE_MASTER_KEY": lost})
    assert (refused.returncode, f"shops reset-key {shop}" in refused.stderr) == (1, True)
    reset = ecomcharge(database_url, "shops", "reset-key", str(shop), environment={"ECOMCHARGE_MASTER_KEY": lost})
    assert (reset.returncode, "secret key: eck_" in reset.stdout) == (0, True)
