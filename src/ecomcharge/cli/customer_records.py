"""The commands that erase customers and write their data: ``customers erase``, ``export-one`` and ``purge``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import cyclopts
from cyclopts import Parameter

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError, CustomerErased, CustomerHasSubscriptions, RecordNotFound
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import SettingsOfServe, settings_from_environment
from ecomcharge.cli.terminal import json_text
from ecomcharge.customers import actions, store
from ecomcharge.runtime.composition import BillingServices, billing_services
from ecomcharge.sandbox.clock import SandboxClock
from ecomcharge.sandbox.model import step_of
from ecomcharge.shops import store as shops
from ecomcharge.shops.actions import check_master_key
from ecomcharge.shops.keys import master_key_of
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_configured
from ecomcharge.subscriptions.erasure import CustomerIsActive, erase_customer
from ecomcharge.subscriptions.export import export_customer
from ecomcharge.subscriptions.retention import inactive_customers

T = TypeVar("T")

erase = cyclopts.App(name="erase", config=settings_from_environment)
export_one = cyclopts.App(name="export-one", config=settings_from_environment)
purge = cyclopts.App(name="purge", config=settings_from_environment)


@erase.default
def erase_one(
    customer_id: str,
    /,
    settings: SettingsOfServe = Settings(),  # noqa: B008 - frozen
    *,
    shop_id: int,
    cancel_subscriptions: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Erase a customer. The help text is in ``cli.customers``.

    Parameters
    ----------
    customer_id
        The id of the customer.
    shop_id
        The shop.
    cancel_subscriptions
        Cancel the subscriptions that can still charge. Without it, such a customer is refused.
    """

    async def work(services: BillingServices) -> None:
        try:
            await erase_customer(services.charging, shop_id, customer_id, cancel=cancel_subscriptions)
        except CustomerHasSubscriptions as error:
            raise ConfigurationError("the customer has active subscriptions; use --cancel-subscriptions") from error
        except RecordNotFound as error:
            raise ConfigurationError(f"shop {shop_id} has no customer {customer_id}") from error
        await services.database.overwrite_deleted()

    _run(settings, work)
    print(f"{customer_id} is erased")


@export_one.default
def export(customer_id: str, /, settings: SettingsOfServe = Settings(), *, shop_id: int) -> None:  # noqa: B008 - frozen
    """Write everything that is stored about a customer. The help text is in ``cli.customers``.

    Parameters
    ----------
    customer_id
        The id of the customer.
    shop_id
        The shop.
    """

    async def work(services: BillingServices) -> None:
        stored = await store.find_stored(services.database, shop_id, customer_id)
        if stored is None:
            error = await actions.absent(services.database, shop_id, customer_id)
            reason = "was erased" if isinstance(error, CustomerErased) else f"is not a customer of shop {shop_id}"
            raise ConfigurationError(f"{customer_id} {reason}") from error
        async for chunk in export_customer(services.database, shop_id, stored, settings.base_url()):
            sys.stdout.write(json_text(chunk))
        sys.stdout.write("\n")

    _run(settings, work)


@purge.default
def erase_inactive(
    settings: SettingsOfServe = Settings(),  # noqa: B008 - frozen
    *,
    shop_id: int,
    inactive: str,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Erase the customers without activity for a time. The help text is in ``cli.customers``.

    Parameters
    ----------
    shop_id
        The shop.
    inactive
        The time: a number and a unit (h, d, w, mo, y), such as 3y.
    dry_run
        Print the ids only.
    """

    async def work(services: BillingServices) -> int:
        if await shops.find_shop(services.database, shop_id) is None:
            raise ConfigurationError(f"no shop {shop_id}")
        now, erased = services.clock.now(), 0
        since = max(0, now - step_of(inactive, now, settings.zone()))
        async for customer_id in inactive_customers(services.database, shop_id, since):
            try:
                if not dry_run:
                    await erase_customer(services.charging, shop_id, customer_id, inactive_since=since)
            except (CustomerIsActive, CustomerHasSubscriptions, RecordNotFound):  # it became active since it was read
                continue
            print(customer_id)
            erased += 1
        if erased and not dry_run:
            await services.database.overwrite_deleted()
        return erased

    number = _run(settings, work)
    print(f"{number} {'would be' if dry_run else 'are'} erased", file=sys.stderr)


def _run(settings: Settings, work: Callable[[BillingServices], Awaitable[T]]) -> T:
    """Open and migrate the database, and run ``work`` with the services of a process."""
    settings.check()
    configure_logging(settings.log_format)

    async def run() -> T:
        master_key = master_key_of(settings)
        database = await open_configured(settings, postgres_connections=1)
        try:
            await migrate(database)
            await check_master_key(database, master_key)
            clock = SandboxClock(database) if settings.sandbox else SystemClock()
            if isinstance(clock, SandboxClock):
                await clock.refresh()
            services = billing_services(settings, database, master_key, clock)
            try:
                return await work(services)
            finally:
                await services.close()
        finally:
            await database.close()

    return asyncio.run(run())
