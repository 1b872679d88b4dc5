"""The clock of sandbox mode. It runs with or without a difference to the real time, or it is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ecomcharge.base.calendar import iso
from ecomcharge.base.clock import SystemClock
from ecomcharge.sandbox import store
from ecomcharge.sandbox.model import ClockObject, Setting
from ecomcharge.storage.database import Database, Transaction

POLL_SECONDS: Final = 0.05


@dataclass
class SandboxClock:
    """The clock of a process. Its setting is in the database, and must be read before the time.

    The server refreshes the setting before each request, so a request may call ``now``. All others call ``read``.
    """

    database: Database
    _setting: Setting | None = None

    @property
    def setting(self) -> Setting:
        """The setting at the last refresh. There is no default: with a wrong time, new records would look old."""
        if self._setting is None:
            raise RuntimeError("the sandbox clock was used before its setting was read from the database")
        return self._setting

    def now(self) -> int:
        return self._time_at(self.setting)

    async def read(self) -> int:
        await self.refresh()
        return self.now()

    async def refresh(self) -> None:
        self._setting = await store.find_setting(self.database)

    def use(self, setting: Setting) -> None:
        """Use a setting that was written to the database."""
        self._setting = setting

    def setting_at(self, moment: int) -> Setting:
        """The setting with which the clock shows ``moment`` now. A frozen clock stays frozen."""
        if self.setting.frozen_at is not None:
            return Setting(frozen_at=moment)
        return Setting(ahead=moment - SystemClock().now())

    def _time_at(self, setting: Setting) -> int:
        if setting.frozen_at is not None:
            return setting.frozen_at
        return SystemClock().now() + setting.ahead

    async def freeze(self) -> None:
        await self._change(lambda: Setting(frozen_at=self.now()))

    async def resume(self) -> None:
        """Return to the real time."""
        await self._change(Setting)

    async def _change(self, wanted: Callable[[], Setting]) -> None:
        """Change the setting after the end of any move."""
        while True:
            await self.refresh()
            setting = wanted()
            if await self._try_change(setting):
                self._setting = setting
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _try_change(self, setting: Setting) -> bool:
        before, real_now = self.setting, SystemClock().now()

        async def unit(tx: Transaction) -> bool:
            return await store.change_setting(tx, before, setting, real_now)

        return await self.database.write(unit)


def to_json(clock: SandboxClock) -> ClockObject:
    return {"now": iso(clock.now()), "frozen": clock.setting.frozen_at is not None}
