"""The sandbox's clock, described."""

from __future__ import annotations

import re
from typing import Final

from ecomcharge.base import errors, ids
from ecomcharge.web.openapi import parts
from ecomcharge.web.openapi.parts import AROUND, Json

_ONLY: Final = "In sandbox mode only (`--sandbox`); elsewhere there is no such route, 404. It moves time for the whole server."
_SHOWN: Final = {"now": "2026-12-24T08:00:00.000Z", "frozen": True}
_MOVE_ID: Final = parts.pattern_of_id(ids.CLOCK_MOVE_ID)
_MOVE: Final = {
    "id": "mov_7aee5afb954c7efb",
    "from": "2026-11-24T08:00:00.000Z",
    "to": "2026-12-24T08:00:00.000Z",
    "now": "2026-12-01T10:30:00.000Z",
    "done": False,
    "error": None,
}
_ONE_AT_A_TIME: Final = (
    "Moves wait for one another, also when they reach different servers of one database. A move that fails on the way is "
    "answered with 504, and the message says how far the clock came."
)

_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
_YEAR: Final = "(?:197[1-9]|19[89][0-9]|20[0-9]{2}|210[0-8])"
_LEAP_YEAR: Final = "(?:19[79][26]|198[048]|20[02468][048]|20[13579][26]|210[48])"
_DATE: Final = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
# At most ten years of each unit.
_STEPS: Final = (
    ("(?:s|m|min)", 999_999),
    ("h", 87_840),
    ("d", 3_660),
    ("w", 522),
    ("mo", 120),
    ("y", 10),
)


def paths() -> Json:
    step = {"step": {"summary": "A month on", "value": {"step": "31d"}}}
    to = {"to": {"summary": "Christmas", "value": {"to": "2026-12-24T08:00:00Z"}}}
    return {
        "/sandbox/clock": {"get": _operation("showClock", "Show the clock")},
        "/sandbox/clock/freeze": {"post": _operation("freezeClock", "Let it stand still")},
        "/sandbox/clock/resume": {"post": _operation("resumeClock", "Set it back to the real time, and let it run")},
        "/sandbox/clock/advance": {
            "post": _operation(
                "advanceClock",
                "Move it forwards",
                f"Everything that becomes due on the way happens on the way, in order, before the answer. {_ONE_AT_A_TIME}",
                parts.json_body("ClockStep", step),
            )
        },
        "/sandbox/clock/set": {
            "post": _operation(
                "setClock",
                "Set it to a moment",
                f"Forwards as `advance` does. Backwards nothing happens but that it is set. {_ONE_AT_A_TIME}",
                parts.json_body("ClockMoment", to),
            )
        },
        "/sandbox/clock/moves/{move_id}": {"get": _move_operation()},
    }


def schemas() -> Json:
    return {
        "Clock": parts.shown_object(
            "The clock.",
            {"now": parts.moment("What it shows."), "frozen": {"type": "boolean", "description": "Whether it stands still."}},
            example=_SHOWN,
        ),
        "ClockMove": parts.shown_object(
            "A move of the clock. The last hundred are kept.",
            {
                "id": {"type": "string", "pattern": _MOVE_ID, "description": "Its id."},
                "from": parts.moment("Where the clock stood. `null` while the move waits for another one.", nullable=True),
                "to": parts.moment("Where it is moved to. `null` while the move waits.", nullable=True),
                "now": parts.moment("How far this move has come. `null` while the move waits.", nullable=True),
                "done": {"type": "boolean", "description": "Whether the move has ended."},
                "error": parts.shown_text("Why it ended before it was complete.", nullable=True),
            },
            example=_MOVE,
        ),
        "ClockStep": {
            "type": "object",
            "required": ["step"],
            "properties": {
                "step": {
                    "description": "A number and a unit: s, m (or min), h, d, w, mo or y. At most ten years, not beyond 2109.",
                    "type": "string",
                    "pattern": f"^{AROUND}(?:{'|'.join(_step(unit, most) for unit, most in _STEPS)}){AROUND}$",
                    "examples": ["31d"],
                }
            },
        },
        "ClockMoment": {
            "type": "object",
            "required": ["to"],
            "properties": {
                "to": {
                    "description": "ISO 8601; without an offset it is UTC, without a time midnight. Before 2109.",
                    "type": "string",
                    "pattern": f"^{_DATE}(?:[T ]{_TIME})?$",
                    "examples": ["2026-12-24T08:00:00Z"],
                }
            },
        },
    }


def _step(unit: str, most: int) -> str:
    unit = re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", unit)
    return f"(?:0|{parts.decimal_up_to(most)}) ?{unit}"


def _operation(operation_id: str, summary: str, description: str = "", body: Json | None = None) -> Json:
    codes = [errors.RouteNotFound.code]
    if body:
        codes += [*parts.OF_JSON, errors.BadParameter.code]
    if operation_id != "showClock":
        codes += parts.OF_A_WRITE
    described: Json = {
        "operationId": operation_id,
        "tags": ["sandbox"],
        "summary": summary,
        "description": f"{description} {_ONLY}".strip(),
        "parameters": [parts.request_id_header()],
        "responses": {
            "200": parts.answer("The clock.", parts.json_of("Clock", _SHOWN)),
            **parts.failures(*codes, *parts.FOR_SHOPS),
        },
    }
    if body:
        described["requestBody"] = body
        described["parameters"].insert(
            0, parts.query("wait", "`false`: answer at once, with the move; it goes on meanwhile.", {"enum": ["true", "false"]})
        )
        described["responses"]["202"] = parts.answer(
            "With `wait=false`: the move has begun.", parts.json_of("ClockMove", _MOVE), headers=("Location",)
        )
    return described


def _move_operation() -> Json:
    return {
        "operationId": "showClockMove",
        "tags": ["sandbox"],
        "summary": "Show how far a move of the clock has come",
        "description": f"A move whose process was killed is `done`, with an `error`, ten seconds later. {_ONLY}",
        "parameters": [
            parts.path_parameter("move_id", {"type": "string", "pattern": _MOVE_ID}),
            parts.request_id_header(),
        ],
        "responses": {
            "200": parts.answer("The move.", parts.json_of("ClockMove", _MOVE)),
            **parts.failures(*parts.OF_AN_ID, *parts.FOR_SHOPS),
        },
    }
