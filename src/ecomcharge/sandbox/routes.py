"""``/sandbox/clock``: show, freeze, advance, set and resume the clock. There in sandbox mode only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.fields import body_of
from ecomcharge.sandbox.clock import SandboxClock, moment_of, shown, step_of
from ecomcharge.web.server import Route
from ecomcharge.web.wire import Request, Response, json_response


class ClockBody(msgspec.Struct):
    step: Any = None  # of advance: 31d
    to: Any = None  # of set: 2026-12-24T08:00:00Z


_BODY: Final = msgspec.json.Decoder(ClockBody)

Advance = Callable[[SandboxClock, int], Awaitable[None]]


class ClockRoutes:
    """``advance`` moves the clock and does what is due on the way."""

    def __init__(self, clock: SandboxClock, advance: Advance, zone: ZoneInfo) -> None:
        self._clock = clock
        self._advance = advance
        self._zone = zone
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/sandbox/clock", self.show),
            Route("POST", "/sandbox/clock/freeze", self.freeze),
            Route("POST", "/sandbox/clock/advance", self.advance),
            Route("POST", "/sandbox/clock/set", self.set),
            Route("POST", "/sandbox/clock/resume", self.resume),
        ]

    async def show(self, request: Request) -> Response:
        return json_response(200, msgspec.json.encode(shown(self._clock)))

    async def freeze(self, request: Request) -> Response:
        async with self._one_at_a_time:
            await self._clock.freeze()
        return await self.show(request)

    async def resume(self, request: Request) -> Response:
        async with self._one_at_a_time:
            await self._clock.resume()
        return await self.show(request)

    async def advance(self, request: Request) -> Response:
        """Answers when everything that was due on the way has happened."""
        body = body_of(await request.json(), _BODY)
        async with self._one_at_a_time:
            now = self._clock.now()
            await self._advance(self._clock, now + step_of(str(body.step or ""), now, self._zone))
        return await self.show(request)

    async def set(self, request: Request) -> Response:
        """Forwards as ``advance`` does; backwards nothing happens but that the clock is set."""
        body = body_of(await request.json(), _BODY)
        moment = moment_of(str(body.to or ""))
        async with self._one_at_a_time:
            if moment > self._clock.now():
                await self._advance(self._clock, moment)
            else:
                await self._clock.move_to(moment)
        return await self.show(request)
