"""The commands ``ecomcharge clock``, which do the work of ``/sandbox/clock`` without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import cyclopts

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.logs import configure_logging
from ecomcharge.base.settings import Settings
from ecomcharge.cli.database_options import SettingsOfServe, settings_from_environment
from ecomcharge.cli.terminal import AsJson, moment, print_json
from ecomcharge.runtime.composition import billing_services
from ecomcharge.sandbox.clock import SandboxClock, to_json
from ecomcharge.sandbox.model import moment_of, step_of
from ecomcharge.sandbox.moves import ClockMoves
from ecomcharge.shops.actions import check_master_key, check_no_real_gateway
from ecomcharge.shops.keys import master_key_of
from ecomcharge.storage.migrate import migrate
from ecomcharge.storage.opening import open_configured

clock = cyclopts.App(name="clock", config=settings_from_environment)


@clock.command
def show(settings: SettingsOfServe = Settings(), *, json: AsJson = False) -> None:  # noqa: B008 - frozen
    """Show the time of the clock."""

    async def nothing(clock: SandboxClock, moves: ClockMoves) -> None:
        pass

    _run(settings, nothing, json)


@clock.command
def freeze(settings: SettingsOfServe = Settings(), *, json: AsJson = False) -> None:  # noqa: B008 - frozen
    """Freeze the clock at its present time."""

    async def work(clock: SandboxClock, moves: ClockMoves) -> None:
        await clock.freeze()

    _run(settings, work, json)


@clock.command
def resume(settings: SettingsOfServe = Settings(), *, json: AsJson = False) -> None:  # noqa: B008 - frozen
    """Return to the real time."""

    async def work(clock: SandboxClock, moves: ClockMoves) -> None:
        await clock.resume()

    _run(settings, work, json)


@clock.command
def advance(step: str, /, settings: SettingsOfServe = Settings(), *, json: AsJson = False) -> None:  # noqa: B008 - frozen
    """Move the clock forward. Makes every charge and sends every webhook that becomes due, and then returns.

    Parameters
    ----------
    step
        A number and a unit (s, m, h, d, w, mo, y), such as 31d.
    """

    async def work(clock: SandboxClock, moves: ClockMoves) -> None:
        await moves.run(lambda now: now + step_of(step, now, settings.zone()))

    _run(settings, work, json)


@clock.command(name="set")
def set_(to: str, /, settings: SettingsOfServe = Settings(), *, json: AsJson = False) -> None:  # noqa: B008 - frozen
    """Set the clock. It moves forward as advance does; backward only the time changes.

    Parameters
    ----------
    to
        A time such as 2026-12-24T08:00:00Z; UTC if it has no offset.
    """

    async def work(clock: SandboxClock, moves: ClockMoves) -> None:
        target = moment_of(to)
        await moves.run(lambda now: target)

    _run(settings, work, json)


def _run(settings: Settings, work: Callable[[SandboxClock, ClockMoves], Awaitable[None]], json: bool) -> None:
    """Run ``work`` and print the time of the clock. Raises ``ConfigurationError`` outside sandbox mode."""
    settings.check()
    if not settings.sandbox:
        raise ConfigurationError("only the clock of a sandbox can be moved: use --sandbox, or set ECOMCHARGE_SANDBOX")
    configure_logging(settings.log_format)

    async def run() -> SandboxClock:
        master_key = master_key_of(settings)
        database = await open_configured(settings)
        try:
            await migrate(database)
            await check_master_key(database, master_key)
            await check_no_real_gateway(database)
            clock = SandboxClock(database)
            await clock.refresh()
            services = billing_services(settings, database, master_key, clock)
            try:
                await work(clock, ClockMoves(clock, services.worker.advance))
            finally:
                await services.close()
            return clock
        finally:
            await database.close()

    clock = asyncio.run(run())
    if json:
        print_json(to_json(clock))
    else:
        print(moment(clock.now()) + ("  (frozen)" if clock.setting.frozen_at is not None else ""))
