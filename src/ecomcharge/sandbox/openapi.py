"""The API description of the sandbox's clock."""

from __future__ import annotations

import re
from typing import Final

from ecomcharge.base import errors, ids
from ecomcharge.base.validation import BOOLEANS
from ecomcharge.sandbox.model import ClockMoveObject, ClockObject
from ecomcharge.sandbox.moves import MOVES_KEPT
from ecomcharge.web.openapi import OF_AN_ID, Operation, Part, answer, json_body, json_content, path_parameter, query
from ecomcharge.web.wire_forms import Json, decimal_up_to, matching, trimmed

_ONLY: Final = "In sandbox mode only (`--sandbox`); elsewhere there is no such route, 404. The whole server has one clock."
_ONE_AT_A_TIME: Final = (
    "Moves wait for one another, also when they reach different servers of one database. A move that fails on the way is "
    "answered with 504, and the message says how far the clock came."
)
_TO: Final = "2026-12-24T08:00:00Z"
_SHOWN: Final = {"now": "2026-12-24T08:00:00.000Z", "frozen": True}
_MOVE: Final = {
    "id": "mov_7aee5afb954c7efb",
    "from": "2026-11-24T08:00:00.000Z",
    "to": "2026-12-24T08:00:00.000Z",
    "now": "2026-12-01T10:30:00.000Z",
    "done": False,
    "error": None,
}
_CLOCK: Final = {200: answer("The clock.", json_content("Clock", _SHOWN))}
_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
_YEAR: Final = "(?:197[1-9]|19[89][0-9]|20[0-9]{2}|210[0-8])"
_LEAP_YEAR: Final = "(?:19[79][26]|198[048]|20[02468][048]|20[13579][26]|210[48])"
_DATE: Final = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_STEPS: Final = (("s|m|min", 999_999), ("h", 87_840), ("d", 3_660), ("w", 522), ("mo", 120), ("y", 10))  # at most ten years


def part() -> Part:
    step = "A number and a unit: s, m (or min), h, d, w, mo or y. At most ten years, not beyond 2109."
    moment = "ISO 8601; without an offset it is UTC, without a time midnight. Before 2109."
    forwards = "Everything that becomes due on the way happens on the way, in order, before the answer."
    backwards = "Forwards it does what `advance` does. Backwards only the clock changes."
    killed = f"A move whose process was killed is `done`, with an `error`, ten seconds later. {_ONLY}"
    move_id = matching(ids.CLOCK_MOVE_ID)
    move = ("GET", "/sandbox/clock/moves/{move_id}", "showClockMove", "Show how far a move of the clock has come", killed)
    found = {200: answer("The move.", json_content("ClockMove", _MOVE))}
    return Part(
        "sandbox",
        "A clock that tests can move, in sandbox mode only.",
        [
            Operation("GET", "/sandbox/clock", "showClock", "Show the clock", _ONLY, _CLOCK, (errors.RouteNotFound,)),
            _set("freeze", "freezeClock", "Stop the clock"),
            _set("resume", "resumeClock", "Set the clock to the real time, and let it run"),
            _move("advance", "advanceClock", "Move the clock forwards", forwards, "ClockStep", step=("A month on", "31d")),
            _move("set", "setClock", "Set the clock to a moment", backwards, "ClockMoment", to=("Christmas", _TO)),
            Operation(*move, found, OF_AN_ID, [path_parameter("move_id", "The id of the move.", move_id)]),
        ],
        types=[ClockObject, ClockMoveObject],
        schemas={
            "Clock": {"examples": [_SHOWN]},
            "ClockMove": {
                "description": f"A move of the clock. The last {MOVES_KEPT} are kept.",
                "properties": {"id": {**move_id, "description": "Its id."}},
                "examples": [_MOVE],
            },
            "ClockStep": _body("step", step, "31d", trimmed(f"(?:{'|'.join(_step(*each) for each in _STEPS)})")),
            "ClockMoment": _body("to", moment, _TO, {"type": "string", "pattern": f"^{_DATE}(?:[T ]{_TIME})?$"}),
        },
    )


def _step(units: str, most: int) -> str:
    units = re.sub("[a-z]", lambda letter: f"[{letter[0].upper()}{letter[0]}]", units)
    return f"(?:0|{decimal_up_to(most)}) ?(?:{units})"


def _body(name: str, description: str, example: str, schema: Json) -> Json:
    properties = {name: {"description": description, **schema, "examples": [example]}}
    return {"type": "object", "required": [name], "properties": properties}


def _set(path: str, id: str, summary: str) -> Operation:
    failures = (errors.RouteNotFound, errors.OutcomeUnknown)
    return Operation("POST", f"/sandbox/clock/{path}", id, summary, _ONLY, _CLOCK, failures)


def _move(path: str, id: str, summary: str, description: str, schema: str, **body: tuple[str, object]) -> Operation:
    """``body`` is the one property of the body, with a summary and an example."""
    wait = query("wait", "`false`: answer at once, with the move; it goes on after the answer.", {"enum": list(BOOLEANS)})
    begun = answer("With `wait=false`: the move has begun.", json_content("ClockMove", _MOVE), "Location")
    examples = {name: (about, {name: value}) for name, (about, value) in body.items()}
    return Operation(
        *("POST", f"/sandbox/clock/{path}", id, summary, f"{description} {_ONE_AT_A_TIME} {_ONLY}"),
        answers={**_CLOCK, 202: begun},
        own_failures=(errors.RouteNotFound, errors.BadParameter, errors.OutcomeUnknown, errors.IncompleteMove),
        parameters=[wait],
        body=json_body(schema, **examples),
    )
