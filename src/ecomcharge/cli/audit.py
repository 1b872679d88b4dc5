"""The command ``ecomcharge audit``."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Final

import cyclopts

from ecomcharge.audit.audit import RECHECK_SECONDS, Audit
from ecomcharge.audit.model import Totals
from ecomcharge.base.calendar import parse_moment
from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.base.text_forms import printable
from ecomcharge.cli.database_options import SettingsOfServe, settings_from_environment
from ecomcharge.cli.terminal import AsJson, print_json
from ecomcharge.runtime.composition import billing_services
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.shops.actions import check_master_key
from ecomcharge.shops.keys import master_key_of
from ecomcharge.storage.migrate import pending_migrations
from ecomcharge.storage.opening import open_configured

DISAGREES: Final = 1  # exit codes
NOT_CHECKED: Final = 2

audit = cyclopts.App(name="audit", config=settings_from_environment)


@audit.default
def run_audit(
    settings: SettingsOfServe = Settings(),  # noqa: B008 - frozen
    *,
    shop_id: int | None = None,
    since: str | None = None,
    recheck_seconds: float = RECHECK_SECONDS,
    json: AsJson = False,
) -> None:
    """Compare payments, subscriptions, events, webhooks and the records of gateways. The help text is in ``cli.commands``.

    Parameters
    ----------
    shop_id
        Audit only this shop.
    since
        Leave out subscriptions and payments that were created earlier. A time such as 2026-05-01 or
        2026-05-01T08:00:00Z; UTC if it has no offset.
    recheck_seconds
        Records that disagree are read again after this time, and count only if they still disagree.
    json
        Print JSON lines. The last line has the totals.
    """
    settings.check()
    configure_logging(settings.log_format)
    found, totals = asyncio.run(_run(settings, shop_id, 0 if since is None else _moment_of(since), recheck_seconds, json))
    _print_summary(found, totals, json)
    if found[True]:
        sys.exit(DISAGREES)
    if found[False]:
        sys.exit(NOT_CHECKED)


async def _run(
    settings: Settings, shop_id: int | None, since: int, recheck_seconds: float, json: bool
) -> tuple[Counter[bool], Totals]:
    """Print what the audit finds. Counts disagreements (``True``) and records that could not be checked (``False``)."""
    master_key = master_key_of(settings)
    database = await open_configured(settings, postgres_connections=2, commit_in_thread=False)
    try:
        if await pending_migrations(database):
            raise ConfigurationError(
                "the database does not have this program's schema; run `ecomcharge migrate`, or audit with its release"
            )
        await check_master_key(database, master_key)
        clock = SandboxClock(database) if settings.sandbox else SystemClock()
        services = billing_services(settings, database, master_key, clock)
        found: Counter[bool] = Counter()
        audit = Audit(database, services.gateways, clock, since, recheck_seconds)
        try:
            async for each in audit.run(shop_id):
                found[each.is_checked] += 1
                if json:
                    print_json(each)
                else:
                    print(f"{'disagrees' if each.is_checked else 'not checked'}: shop {each.shop_id}: {printable(each.message)}")
        finally:
            await services.close()
        return found, audit.totals
    finally:
        await database.close()


def _print_summary(found: Counter[bool], totals: Totals, json: bool) -> None:
    ours, theirs = totals.ours, totals.gateways
    taken = [
        {"gateway": key[0], "currency": key[1], "ours": ours[key], "gateways": theirs[key]} for key in sorted({*ours, *theirs})
    ]
    if json:
        summary = {"subscriptions": totals.subscriptions, "payments": totals.payments, "taken": taken}
        print_json({"kind": "summary", "disagreements": found[True], "not_checked": found[False], **summary})
        return
    for one in taken:
        print(f"taken: {one['gateway']} {one['currency']}: {one['ours']} by our payments, {one['gateways']} by its records")
    checked = f"{totals.subscriptions} subscriptions, {totals.payments} payments"
    print(f"{checked}: {found[True]} disagreements, {found[False]} not checked")


def _moment_of(text: str) -> int:
    try:
        return max(0, parse_moment(text))
    except ValueError as error:
        raise ConfigurationError("--since must be a moment such as 2026-05-01 or 2026-05-01T08:00:00Z") from error
