"""The command line's door of shops: ``ecomcharge shops``."""

from __future__ import annotations

import os
from typing import Final

import cyclopts

from ecomcharge.clock import SystemClock
from ecomcharge.keys import master_key_of
from ecomcharge.shops import actions, store
from ecomcharge.shops.model import Credentials, Gateway, Shop
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions.schedule import iso
from ecomcharge.terminal import AsJson, moment, print_facts, print_json, print_table
from ecomcharge.webhooks.actions import signing_key_of
from ecomcharge.webhooks.model import pem_of
from ecomcharge.where import Where, with_database

GATEWAY_SECRET_KEY: Final = "ECOMCHARGE_GATEWAY_SECRET_KEY"  # noqa: S105 - its name

shops = cyclopts.App(name="shops")


@shops.command(name="create")
def create_shop(
    where: Where = Where(),
    *,
    name: str,
    shop_id: int | None = None,
    secret_key: str | None = None,
    json: AsJson = False,
) -> None:
    """Create a shop and print its id and secret key, once.

    Parameters
    ----------
    name
        What to call it.
    shop_id
        Its id; chosen at random unless given.
    secret_key
        A key of your own, for sandboxes: at least 8 characters. Made with 256 random bits unless given.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> Credentials:
        await actions.check_master_key(database, master_key)
        return await actions.create_shop(
            database, master_key, SystemClock().now(), name=name, shop_id=shop_id, secret_key=secret_key
        )

    _print_credentials(with_database(where, work), json)


@shops.command(name="list")
def list_shops(where: Where = Where(), *, json: AsJson = False) -> None:
    """List the shops, oldest first."""
    found = with_database(where, store.all_shops)
    if json:
        print_json(found)
        return
    rows = [(str(shop.shop_id), shop.name, moment(shop.created_at), moment(shop.closed_at)) for shop in found]
    print_table(("shop", "name", "created", "closed"), rows)


@shops.command(name="show")
def show_shop(shop: int, where: Where = Where(), *, json: AsJson = False) -> None:
    """Show a shop: its gateway, and the public key with which its webhooks' Content-Signature is verified.

    Parameters
    ----------
    shop
        Its id.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> tuple[Shop, Gateway, str]:
        await actions.check_master_key(database, master_key)
        found, gateway = await actions.shop_and_gateway(database, shop)
        return found, gateway, (await signing_key_of(database, master_key, shop)).public_text()

    found, gateway, public_key = with_database(where, work)
    if json:
        told = {
            "shop_id": found.shop_id,
            "name": found.name,
            "created_at": iso(found.created_at),
            "closed_at": None if found.closed_at is None else iso(found.closed_at),
            "gateway": gateway.name,
            "gateway_url": gateway.url,
            "gateway_user": gateway.user,
            "public_key": public_key,
            "public_key_pem": pem_of(public_key),
        }
        print_json(told)
        return
    facts = {
        "shop": f"{found.shop_id}  {found.name}",
        "created": moment(found.created_at),
        "closed": moment(found.closed_at),
        "gateway": " ".join(filter(None, (gateway.name, gateway.url, gateway.user and f"as {gateway.user}"))),
        "public key": public_key,
    }
    print_facts(facts)
    print(f"\n{pem_of(public_key)}", end="")


@shops.command(name="gateway")
def set_gateway(shop: int, gateway: str, where: Where = Where(), *, url: str | None = None, user: str | None = None) -> None:
    """Choose the gateway that charges the cards of a shop's plans, but for those of plans with ``test``.

    The gateway's secret key is taken from the environment: ECOMCHARGE_GATEWAY_SECRET_KEY.

    Parameters
    ----------
    shop
        Its id.
    gateway
        ``sandbox``, which moves no money, or ``begateway``.
    url
        Where the gateway is, such as https://gateway.bepaid.by.
    user
        The shop's id at the gateway.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> None:
        await actions.check_master_key(database, master_key)
        secret_key = os.environ.get(GATEWAY_SECRET_KEY)
        await actions.set_gateway(database, master_key, shop_id=shop, gateway=gateway, url=url, user=user, secret_key=secret_key)

    with_database(where, work)
    print(f"shop {shop} charges with {gateway}; every server and worker knows within five seconds")


@shops.command(name="rotate-key")
def rotate_key(
    shop: int,
    where: Where = Where(),
    *,
    overlap: int = 0,
    secret_key: str | None = None,
    json: AsJson = False,
) -> None:
    """Give a shop a new secret key and print it, once.

    Parameters
    ----------
    shop
        Its id.
    overlap
        Seconds for which the old key stays good.
    secret_key
        A key of your own, for sandboxes: at least 8 characters.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> Credentials:
        await actions.check_master_key(database, master_key)
        return await actions.rotate_key(
            database, master_key, SystemClock().now(), shop_id=shop, secret_key=secret_key, overlap_seconds=overlap
        )

    _print_credentials(with_database(where, work), json)


@shops.command(name="close")
def close_shop(shop: int, where: Where = Where()) -> None:
    """Close a shop: nobody gets in with its keys any more. Its data stays."""

    async def work(database: Database) -> None:
        await actions.close_shop(database, SystemClock().now(), shop_id=shop)

    with_database(where, work)
    print(f"shop {shop} is closed; every server knows within five seconds")


def _print_credentials(credentials: Credentials, json: bool) -> None:
    if json:
        print_json(credentials)
    else:
        print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)")
