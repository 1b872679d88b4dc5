"""The list of the commands of ``ecomcharge``, and the command ``migrate``."""

from __future__ import annotations

import asyncio
from typing import Final

import cyclopts

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.cli.database_options import Where, run
from ecomcharge.storage.database import Database
from ecomcharge.storage.migrate import check_citus
from ecomcharge.storage.migrate import distribute as distribute_database
from ecomcharge.storage.migrate import migrate as migrate_database

WORKER_HELP: Final = """Run a billing worker until SIGTERM: it makes the charges that are due and sends webhooks.

Use it on machines without a server, or to add workers. It takes the settings of ``serve``, and needs the same --database,
master key, --public-url and --time-zone."""

AUDIT_HELP: Final = """Compare payments, subscriptions, events, webhooks and the records of gateways, and report disagreements.

It only reads, and can run while servers run. It takes the settings of ``serve``. Exit code 0: everything agrees; 1:
something disagrees, or the audit could not run; 2: nothing disagrees, but some records could not be checked."""

MASTER_KEY_HELP: Final = "The key that encrypts and hashes the keys of shops: make one, or replace it while servers run."

cli = cyclopts.App(name="ecomcharge", help="A server for the eComCharge Customers API and the Plans and Subscriptions API.")
# Each command is imported when it is used. Importing the server would add half a second to every other command.
cli.command("ecomcharge.cli.serve:server", name="serve", help="Migrate the database and serve the API until SIGTERM.")
cli.command("ecomcharge.cli.worker:worker", name="worker", help=WORKER_HELP)
cli.command("ecomcharge.cli.audit:audit", name="audit", help=AUDIT_HELP)
cli.command("ecomcharge.cli.customers:customers", name="customers", help="Import, export and erase customers.")
cli.command("ecomcharge.cli.shops:shops", name="shops", help="Shops, their keys and their gateways.")
cli.command("ecomcharge.cli.webhooks:webhooks", name="webhooks", help="List, show, redeliver and skip webhooks.")
cli.command("ecomcharge.cli.clock:clock", name="clock", help="The clock of sandbox mode. Takes the settings of serve.")
cli.command("ecomcharge.cli.master_key:master_key", name="master-key", help=MASTER_KEY_HELP)


@cli.command
def migrate(*, distribute: bool = False, dry_run: bool = False, where: Where = Where()) -> None:
    """Migrate the database to the schema of this program.

    Parameters
    ----------
    distribute
        Then distribute the tables by shop over the nodes of a cluster with Citus, as far as that is not done. Stop all servers
        and billing workers before.
    dry_run
        With --distribute: apply no migration, print the SQL that distributes the tables, and execute nothing.
    """
    if dry_run and not distribute:
        raise ConfigurationError("--dry-run needs --distribute")

    async def work(database: Database) -> None:
        if distribute:
            check_citus(database)
        if not dry_run:
            applied = await migrate_database(database)
            print("\n".join(f"applied {m.version:04d} {m.name}" for m in applied) or "nothing to apply")
        if distribute:
            await distribute_database(database, _print_statement, dry_run=dry_run)

    asyncio.run(run(where, work))


def _print_statement(statement: str) -> None:
    print(f"{statement};", flush=True)
