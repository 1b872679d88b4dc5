"""The command line: ``ecomcharge serve``, and what an operator does besides."""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecomcharge import app as application
from ecomcharge import keys, observability
from ecomcharge.clock import SystemClock
from ecomcharge.customers.commands import customers
from ecomcharge.errors import EcomchargeError, Unavailable
from ecomcharge.settings import Settings
from ecomcharge.shops import actions
from ecomcharge.shops import store as shops_store
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import migrate as migrate_database
from ecomcharge.where import Where, run, with_database

cli = cyclopts.App(
    name="ecomcharge",
    help="A server for the eComCharge Customers API.",
)
server = cyclopts.App(name="serve", config=cyclopts.config.Env("ECOMCHARGE_", command=False))
shops = cyclopts.App(name="shops", help="Shops and their keys.")
master_key = cyclopts.App(name="master-key", help="The key under which shop keys are kept.")
cli.command(server)
cli.command(customers)
cli.command(shops)
cli.command(master_key)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and serve the API until SIGTERM."""
    observability.configure_logging(settings.log_format)
    credentials = asyncio.run(application.prepare(settings, SystemClock().now()))
    if settings.sandbox:
        _print_welcome(settings, credentials)
    application.serve(settings)


@cli.command
def migrate(where: Where = Where()) -> None:
    """Bring the database to this program's schema."""

    applied = asyncio.run(run(where, migrate_database))
    print("\n".join(f"applied {m.version:04d} {m.name}" for m in applied) or "nothing to apply")


@shops.command(name="create")
def create_shop(
    where: Where = Where(),
    *,
    name: str,
    shop_id: int | None = None,
    secret_key: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
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
    master_key = application.master_key_of(where.settings())

    async def work(database: Database) -> Credentials:
        await actions.check_master_key(database, master_key)
        return await actions.create_shop(
            database, master_key, SystemClock().now(), name=name, shop_id=shop_id, secret_key=secret_key
        )

    _print_credentials(with_database(where, work), json)


@shops.command(name="list")
def list_shops(where: Where = Where(), *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List the shops, oldest first."""
    found = with_database(where, shops_store.all_shops)
    if json:
        print(msgspec.json.encode(found).decode())
        return
    table = Table("shop", "name", "created", "closed")
    for shop in found:
        table.add_row(str(shop.shop_id), escape(shop.name), _moment(shop.created_at), _moment(shop.closed_at))
    Console().print(table)


@shops.command(name="rotate-key")
def rotate_key(
    shop: int,
    where: Where = Where(),
    *,
    overlap: int = 0,
    secret_key: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
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
    master_key = application.master_key_of(where.settings())

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


@master_key.command(name="new")
def new_master_key() -> None:
    """Print a new master key. Keep it where the database is not: without it no shop key works."""
    print(keys.make_master_key())


def _print_credentials(credentials: Credentials, json: bool) -> None:
    if json:
        print(msgspec.json.encode(credentials).decode())
    else:
        print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)")


def _print_welcome(settings: Settings, credentials: Credentials | None) -> None:
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"{scheme}://{host}:{settings.port}"
    print(f"ecomcharge sandbox on {base}   (try it in a browser: {base}/docs)")
    if credentials is None:
        print("The shops are as you left them; a key is shown only once. For a new one, in another terminal:")
        database = settings.database if settings.database.startswith("sqlite:") else "..."  # others hold a password
        print(f"  ecomcharge shops rotate-key {application.SANDBOX_SHOP_ID} --database {database}", flush=True)
        return
    print(f"shop id:    {credentials.shop_id}\nsecret key: {credentials.secret_key}   (shown this once)\n")
    print(
        f"curl {base}/customers -u {credentials.shop_id}:{credentials.secret_key} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -d \'{"first_name":"John","last_name":"Doe","country":"US","state":"CO","zip":"92006",'
        '"email":"customer@example.com","ip":"127.0.0.1"}\'\n',
        flush=True,
    )


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def main() -> None:
    """Run a command; what an operator can mend is told in one sentence on standard error, with exit code 1."""
    try:
        cli()
    except Unavailable as error:
        print(f"ecomcharge: the database is not available: {error.__cause__ or error}", file=sys.stderr)
        sys.exit(1)
    except EcomchargeError as error:
        print(f"ecomcharge: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has had enough
        sys.exit(1)
    except KeyboardInterrupt:
        print("ecomcharge: stopped; the same command goes on where this one was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
