"""The commands ``ecomcharge master-key``."""

from __future__ import annotations

import sys

import cyclopts

from ecomcharge.cli.database_options import Where, with_database
from ecomcharge.cli.shops import command_to_enter_key
from ecomcharge.shops.keys import make_master_key, master_key_of
from ecomcharge.shops.sealing import reseal

master_key = cyclopts.App(name="master-key")


@master_key.command(name="new")
def new_master_key() -> None:
    """Print a new master key. Do not store it beside the database. Without it no shop key works."""
    print(make_master_key())


@master_key.command(name="rotate")
def rotate_master_key(where: Where = Where()) -> None:
    """Encrypt and hash every secret in the database under the first of the given master keys. Servers may run.

    Before, every server and worker must have both keys, first with the new one as the second, then with the new one as the
    first. Afterwards the old one can be removed from their settings. With one key, the command binds the keys of gateway
    accounts that an earlier release stored to the address of their account. It can be repeated.
    """
    key = master_key_of(where.settings())
    done = with_database(where, lambda database: reseal(database, key))
    print(
        f"{done.shop_keys} shop keys, {done.gateway_keys} gateway keys and {done.signing_keys} signing keys are encrypted again"
    )
    for shop_id in done.unreadable:
        print(f"shop {shop_id} has secrets under another master key: `ecomcharge shops reset-key {shop_id}`", file=sys.stderr)
    for shop_id, account in done.lost_accounts:
        print(f"gateway account {account.id} of shop {shop_id} has a key under another master key", file=sys.stderr)
        print(f"  to enter it again: {command_to_enter_key(shop_id, account)}", file=sys.stderr)
        print(f"  if it is not needed: ecomcharge shops forget-account {shop_id} {account.id}", file=sys.stderr)
    if done.unreadable or done.lost_accounts:
        sys.exit(1)
    if len(key) > 1:
        print("every secret is under the first master key; remove the others from the settings of all servers and workers")
