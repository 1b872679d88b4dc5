"""The commands ``ecomcharge shops``."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated, Final

import cyclopts
from cyclopts import Parameter

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import SystemClock
from ecomcharge.cli.database_options import Where, with_database
from ecomcharge.cli.terminal import AsJson, moment, print_facts, print_json, print_table
from ecomcharge.shops import actions, sealing, store
from ecomcharge.shops.actions import ShopDetails
from ecomcharge.shops.keys import master_key_of
from ecomcharge.shops.model import AccountInUse, Credentials, GatewayAccount
from ecomcharge.storage.database import Database
from ecomcharge.subscriptions import closed_shops
from ecomcharge.webhooks.model import pem_of, standard_webhooks_key
from ecomcharge.webhooks.outbox import signing_key_of, webhook_key_of

GATEWAY_SECRET_KEY: Final = "ECOMCHARGE_GATEWAY_SECRET_KEY"  # noqa: S105 - the name of the variable
NOT_CHOSEN: Final = "outside sandbox mode only plans with `test` are charged"

Sandbox = Annotated[bool, Parameter(env_var="ECOMCHARGE_SANDBOX", negative="")]
WebhookKey = Annotated[bool, Parameter(negative="")]

shops = cyclopts.App(name="shops")


@shops.command(name="create")
def create_shop(
    where: Where = Where(),
    *,
    name: str,
    shop_id: int | None = None,
    secret_key: str | None = None,
    sandbox: Sandbox = False,
    json: AsJson = False,
) -> None:
    """Create a shop and print its id and secret key. The key cannot be printed again.

    Parameters
    ----------
    name
        The name of the shop.
    shop_id
        The id of the shop. The default is a random id.
    secret_key
        A key of your own: at least 32 characters. The default is a key of 256 random bits.
    sandbox
        The shop is of a sandbox: a key of your own may have 8 characters.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> Credentials:
        await actions.check_master_key(database, master_key)
        return await actions.create_shop(
            *(database, master_key, SystemClock().now()),
            name=name,
            shop_id=shop_id,
            secret_key=secret_key,
            sandbox=sandbox,
        )

    credentials = with_database(where, work)
    _print_credentials(credentials, json)
    _print_gateway_hint(credentials.shop_id)


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
def show_shop(shop: int, where: Where = Where(), *, webhook_key: WebhookKey = False, json: AsJson = False) -> None:
    """Show a shop: its gateway, and the public key that verifies the Content-Signature of its webhooks.

    Parameters
    ----------
    shop
        The id of the shop.
    webhook_key
        Print the whsec_ key too, with which libraries of Standard Webhooks verify its webhooks. It contains the secret key of
        the shop.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> tuple[ShopDetails, str, str | None]:
        await actions.check_master_key(database, master_key)
        details = await actions.shop_details(database, shop)
        key = await webhook_key_of(database, master_key, shop, SystemClock().now()) if webhook_key else None
        return details, (await signing_key_of(database, master_key, shop)).public_text(), key

    details, public_key, printed_key = with_database(where, work)
    found, current = details.shop, details.current
    if json:
        print_json(
            {
                "shop_id": found.shop_id,
                "name": found.name,
                "created_at": iso(found.created_at),
                "closed_at": None if found.closed_at is None else iso(found.closed_at),
                "gateway": details.choice.gateway,
                "gateway_url": current and current.url,
                "gateway_user": current and current.user,
                "gateway_chosen": details.choice.was_made,
                "gateway_accounts": [_account_json(one) for one in details.accounts],
                "public_key": public_key,
                "public_key_pem": pem_of(public_key),
                **({} if printed_key is None else {"webhook_key": printed_key}),
            }
        )
        return
    facts = {
        "shop": f"{found.shop_id}  {found.name}",
        "created": moment(found.created_at),
        "closed": moment(found.closed_at),
        "gateway": _gateway_text(details),
        **{f"account {one.account.id}": f"{one.account.url} as {one.account.user}, {one.use}" for one in details.accounts},
        "webhook key": printed_key or "printed with --webhook-key: it contains the secret key",
        "public key": public_key,
    }
    print_facts(facts)
    print(f"\n{pem_of(public_key)}", end="")


def _gateway_text(details: ShopDetails) -> str:
    if details.current is not None:
        account = details.current
        return f"{account.gateway} {account.url} as {account.user}, account {account.id}"
    return details.choice.gateway if details.choice.was_made else f"not chosen: {NOT_CHOSEN}"


def _account_json(one: AccountInUse) -> dict[str, object]:
    return {
        "id": one.account.id,
        "gateway": one.account.gateway,
        "url": one.account.url,
        "user": one.account.user,
        "current": one.is_current,
        "subscriptions": one.use.subscriptions,
        "unsettled_payments": one.use.unsettled_payments,
    }


@shops.command(name="gateway")
def set_gateway(shop: int, gateway: str, where: Where = Where(), *, url: str | None = None, user: str | None = None) -> None:
    """Choose the gateway for new subscriptions of a shop, except those of plans with ``test``.

    The same URL and user are the same account, with a new key. Another account is kept for the subscriptions and payments
    that began with it, until ``shops forget-account``. The secret key of the gateway is read from the environment variable
    ECOMCHARGE_GATEWAY_SECRET_KEY.

    Parameters
    ----------
    shop
        The id of the shop.
    gateway
        ``sandbox``, which moves no money, or ``begateway``.
    url
        The address of the gateway, such as https://gateway.bepaid.by.
    user
        The id of the shop at the gateway.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> ShopDetails:
        await actions.check_master_key(database, master_key)
        await actions.set_gateway(
            database,
            master_key,
            SystemClock().now(),
            shop_id=shop,
            gateway=gateway,
            url=url,
            user=user,
            secret_key=os.environ.get(GATEWAY_SECRET_KEY),
        )
        return await actions.shop_details(database, shop)

    details = with_database(where, work)
    account = f", account {details.current.id}" if details.current is not None else ""
    print(f"shop {shop} charges with {gateway}{account}; every server and worker uses it within five seconds")
    for one in details.accounts:
        if one.use.is_needed and not one.is_current:
            print(f"{one} is kept: {one.use}")
        elif not one.is_current:
            print(f"{one} is not needed any more: `ecomcharge shops forget-account {shop} {one.account.id}` deletes its key")


@shops.command(name="forget-account")
def forget_account(shop: int, account: str, where: Where = Where()) -> None:
    """Delete the key of a gateway account that no subscription and no payment needs any more.

    Parameters
    ----------
    shop
        The id of the shop.
    account
        The id of the account. ``shops show`` lists it.
    """

    async def work(database: Database) -> None:
        await actions.forget_account(database, shop_id=shop, account_id=account)

    with_database(where, work)
    print(f"the key of account {account} of shop {shop} is deleted")


@shops.command(name="rotate-key")
def rotate_key(
    shop: int,
    where: Where = Where(),
    *,
    overlap: int = 0,
    secret_key: str | None = None,
    sandbox: Sandbox = False,
    json: AsJson = False,
) -> None:
    """Give a shop a new secret key and print it. The key cannot be printed again.

    Parameters
    ----------
    shop
        The id of the shop.
    overlap
        Seconds during which the old key still works.
    secret_key
        A key of your own: at least 32 characters. The default is a key of 256 random bits.
    sandbox
        The shop is of a sandbox: a key of your own may have 8 characters.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> Credentials:
        await actions.check_master_key(database, master_key)
        return await actions.rotate_key(
            *(database, master_key, SystemClock().now()),
            shop_id=shop,
            secret_key=secret_key,
            sandbox=sandbox,
            overlap_seconds=overlap,
        )

    _print_credentials(with_database(where, work), json)


@shops.command(name="reset-key")
def reset_key(shop: int, where: Where = Where(), *, json: AsJson = False) -> None:
    """Give a shop new keys after the master key was lost, and print its secret key. The key cannot be printed again.

    Webhooks of the shop get a new key for their Content-Signature. The secret keys of its gateway accounts must be entered
    again: the command prints how. Data, subscriptions and card tokens stay.

    Parameters
    ----------
    shop
        The id of the shop.
    json
        Print a JSON object.
    """
    master_key = master_key_of(where.settings())

    async def work(database: Database) -> sealing.ResetKey:
        return await sealing.reset_key(database, master_key, SystemClock().now(), shop_id=shop)

    reset = with_database(where, work)
    _print_credentials(reset.credentials, json)
    for account in reset.lost:
        command = command_to_enter_key(shop, account)
        print(f"enter the lost key of gateway account {account.id} again:\n  {command}", file=sys.stderr)


def command_to_enter_key(shop_id: int, account: GatewayAccount) -> str:
    """The command that stores the secret key of a gateway account again."""
    names = f"--url {shlex.quote(account.url)} --user {shlex.quote(account.user)}"
    return f"{GATEWAY_SECRET_KEY}=... ecomcharge shops gateway {shop_id} {account.gateway} {names}"


@shops.command(name="close")
def close_shop(shop: int, where: Where = Where()) -> None:
    """Close a shop: its keys are refused, no card is charged, and its payment pages are closed. Its data is kept.

    Charges in progress are completed, and webhooks that were created are still sent.
    """

    async def work(database: Database) -> None:
        await actions.close_shop(database, SystemClock().now(), shop_id=shop)

    with_database(where, work)
    print(f"shop {shop} is closed; every server applies this within five seconds")


@shops.command(name="open")
def open_shop(shop: int, where: Where = Where()) -> None:
    """Open a closed shop again: its keys work, and its overdue renewals are due now.

    Each overdue renewal is charged once, for the present period. Periods that passed are not charged.
    """

    async def work(database: Database) -> int:
        return await closed_shops.open_shop(database, shop_id=shop)

    due = with_database(where, work)
    print(f"shop {shop} is open; {due} subscriptions are scheduled again; every server applies this within five seconds")


def _print_gateway_hint(shop_id: int) -> None:
    """Print on standard error, so that a script reads only the credentials from standard output."""
    print(
        f"No gateway is chosen for this shop yet; {NOT_CHOSEN}. Choose one:\n"
        f"  ecomcharge shops gateway {shop_id} begateway --url https://... --user ...   (its key in {GATEWAY_SECRET_KEY})\n"
        f"  ecomcharge shops gateway {shop_id} sandbox   (moves no money)",
        file=sys.stderr,
    )


def _print_credentials(credentials: Credentials, json: bool) -> None:
    webhook_key = standard_webhooks_key(credentials.secret_key)
    if json:
        print_json({"shop_id": credentials.shop_id, "secret_key": credentials.secret_key, "webhook_key": webhook_key})
    else:
        print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)")
        print(f"webhooks:   {webhook_key}   (the same key for libraries of Standard Webhooks)")
