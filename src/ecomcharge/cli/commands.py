"""The commands of ``ecomcharge``, and those that have no module of their own."""

from __future__ import annotations

import asyncio
from typing import Final

import cyclopts

from ecomcharge.cli.database_options import Where, run
from ecomcharge.shops import keys
from ecomcharge.storage.migrate import migrate as migrate_database

WORKER_HELP: Final = """Charge and send what is due until SIGTERM: for machines without a server, and for more hands.

Takes the settings of ``serve``, and needs the same --database, master key, --public-url and --time-zone."""

AUDIT_HELP: Final = """Compare payments, subscriptions, events, webhooks and the gateways' records, and say what disagrees.

It only reads, and works beside running servers. Takes the settings of ``serve``. Exit code 0: all agrees; 1: something
disagrees; 2: nothing disagrees, but not all could be checked."""

cli = cyclopts.App(
    name="ecomcharge",
    help="A server for the eComCharge Customers API.",
)
master_key = cyclopts.App(name="master-key", help="The key under which shop keys are kept.")
# Each is loaded when it is asked for: a server and its pages would cost every other command half a second.
cli.command("ecomcharge.cli.serve:server", name="serve", help="Migrate the database and serve the API until SIGTERM.")
cli.command("ecomcharge.cli.worker:worker", name="worker", help=WORKER_HELP)
cli.command("ecomcharge.cli.audit:audit", name="audit", help=AUDIT_HELP)
cli.command("ecomcharge.cli.customers:customers", name="customers", help="Customers in bulk.")
cli.command("ecomcharge.cli.shops:shops", name="shops", help="Shops, their keys and their gateways.")
cli.command("ecomcharge.cli.webhooks:webhooks", name="webhooks", help="Webhooks: what merchants were told.")
cli.command("ecomcharge.cli.clock:clock", name="clock", help="The clock of sandbox mode. Its settings are those of serve.")
cli.command(master_key)


@cli.command
def migrate(where: Where = Where()) -> None:
    """Bring the database to this program's schema."""

    applied = asyncio.run(run(where, migrate_database))
    print("\n".join(f"applied {m.version:04d} {m.name}" for m in applied) or "nothing to apply")


@master_key.command(name="new")
def new_master_key() -> None:
    """Print a new master key. Keep it where the database is not: without it no shop key works."""
    print(keys.make_master_key())
