"""The command line: ``ecomcharge serve``, and what an operator does besides."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from ecomcharge import app as application
from ecomcharge import keys, observability
from ecomcharge.clock import SystemClock
from ecomcharge.customers.commands import customers
from ecomcharge.errors import EcomchargeError, Unavailable
from ecomcharge.sandbox.commands import clock
from ecomcharge.settings import Settings
from ecomcharge.shops.commands import shops
from ecomcharge.shops.model import Credentials
from ecomcharge.storage.migrate import migrate as migrate_database
from ecomcharge.webhooks.commands import webhooks
from ecomcharge.where import Where, run, settings_from_environment
from ecomcharge.worker import until_signalled

cli = cyclopts.App(
    name="ecomcharge",
    help="A server for the eComCharge Customers API.",
)
server = cyclopts.App(name="serve", config=settings_from_environment)
worker = cyclopts.App(name="worker", config=settings_from_environment)
master_key = cyclopts.App(name="master-key", help="The key under which shop keys are kept.")
for each in (server, worker, customers, shops, webhooks, clock, master_key):
    cli.command(each)


@server.default
def serve(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database and serve the API until SIGTERM."""
    observability.configure_logging(settings.log_format)
    credentials = asyncio.run(application.prepare(settings, SystemClock().now()))
    if settings.sandbox:
        _print_welcome(settings, credentials)
    application.serve(settings)


@worker.default
def work(settings: Annotated[Settings, Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    """Migrate the database, then charge and send what is due until SIGTERM. For machines without a server, and for more hands.

    Takes the settings of ``serve``, and needs the same --database, master key, --public-url and --time-zone.
    """
    observability.configure_logging(settings.log_format)
    asyncio.run(application.prepare_database(settings))
    asyncio.run(until_signalled(functools.partial(application.work, settings)))


@cli.command
def migrate(where: Where = Where()) -> None:
    """Bring the database to this program's schema."""

    applied = asyncio.run(run(where, migrate_database))
    print("\n".join(f"applied {m.version:04d} {m.name}" for m in applied) or "nothing to apply")


@master_key.command(name="new")
def new_master_key() -> None:
    """Print a new master key. Keep it where the database is not: without it no shop key works."""
    print(keys.make_master_key())


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


def main(arguments: list[str] | None = None) -> None:
    """Run a command, the command line's unless one is given.

    What an operator can mend is told in one sentence on standard error, with exit code 1.
    """
    try:
        cli(arguments)
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
