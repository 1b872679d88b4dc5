"""The JSON API of the sandbox clock: show, freeze, advance, set and resume it, and show the progress of moves."""

from __future__ import annotations

from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from ecomcharge.base.errors import BadParameter
from ecomcharge.base.validation import BOOLEANS, decode_body
from ecomcharge.sandbox.clock import to_json
from ecomcharge.sandbox.model import moment_of, move_to_json, step_of
from ecomcharge.sandbox.moves import ClockMoves, Target
from ecomcharge.web.messages import Request, Response, json_response
from ecomcharge.web.router import Route


class ClockBody(msgspec.Struct):
    step: Any = None  # for advance, such as 31d
    to: Any = None  # for set, such as 2026-12-24T08:00:00Z


_BODY: Final = msgspec.json.Decoder(ClockBody)


class ClockRoutes:
    def __init__(self, moves: ClockMoves, zone: ZoneInfo) -> None:
        self._moves = moves
        self._zone = zone
        self._clock = moves.clock

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/sandbox/clock", self.show),
            Route("POST", "/sandbox/clock/freeze", self.freeze),
            Route("POST", "/sandbox/clock/advance", self.advance),
            Route("POST", "/sandbox/clock/set", self.set),
            Route("POST", "/sandbox/clock/resume", self.resume),
            Route("GET", "/sandbox/clock/moves/{}", self.show_move),
        ]

    async def show(self, request: Request) -> Response:
        return json_response(200, msgspec.json.encode(to_json(self._clock)))

    async def freeze(self, request: Request) -> Response:
        await self._clock.freeze()
        return await self.show(request)

    async def resume(self, request: Request) -> Response:
        await self._clock.resume()
        return await self.show(request)

    async def advance(self, request: Request) -> Response:
        """Responds when everything that became due is processed; with ``wait=false`` at once."""
        step = str(decode_body(await request.json(), _BODY).step or "")
        return await self._move(request, lambda now: now + step_of(step, now, self._zone))

    async def set(self, request: Request) -> Response:
        """Moves forward as ``advance`` does. Backward it only sets the clock."""
        moment = moment_of(str(decode_body(await request.json(), _BODY).to or ""))
        return await self._move(request, lambda now: moment)

    async def show_move(self, request: Request) -> Response:
        return await self._move_response(200, request.argument)

    async def _move(self, request: Request, target: Target) -> Response:
        wait = _wait(request)
        target(self._clock.now())  # raises BadParameter before the move is created
        if wait:
            await self._moves.run(target)
            return await self.show(request)
        id = await self._moves.start(target)
        return await self._move_response(202, id, ("location", f"/sandbox/clock/moves/{id}"))

    async def _move_response(self, status: int, id: str, *headers: tuple[str, str]) -> Response:
        move = await self._moves.find(id)
        return json_response(status, msgspec.json.encode(move_to_json(move, self._moves.real_clock.now())), *headers)


def _wait(request: Request) -> bool:
    wait = BOOLEANS.get(request.query().get("wait", "true"))
    if wait is None:
        raise BadParameter("Wait must be true or false")
    return wait
