"""The calls about the sandbox clock, and the check that the server is ready."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from ecomcharge.client.calls import Call, Repeat, Requests, json_of, moment, nothing, segment
from ecomcharge.client.errors import ClockMoveError
from ecomcharge.client.model import Clock, ClockMove

POLL_SECONDS: Final = 0.1


class ClockCalls(Requests):
    def get_clock(self) -> Call[Clock]:
        """The sandbox clock. Raises ``NotFoundError`` if the server is not a sandbox."""
        return self.reading("sandbox/clock", json_of(Clock))

    def freeze_clock(self) -> Call[Clock]:
        """Stop the sandbox clock."""
        return self.unkeyed("POST", "sandbox/clock/freeze", json_of(Clock), Repeat.SAFE)

    def resume_clock(self) -> Call[Clock]:
        """Set the sandbox clock to the real time and let it run."""
        return self.unkeyed("POST", "sandbox/clock/resume", json_of(Clock), Repeat.SAFE)

    def start_clock_move(self, *, step: str | None = None, to: datetime | str | None = None) -> Call[ClockMove]:
        """Begin to move the sandbox clock by a ``step`` such as ``31d``, or to a time, and return at once.

        It is sent again only if it certainly had no effect, because a second step would move the clock further.
        """
        if (step is None) == (to is None):
            raise ValueError("give either step or to")
        body: dict[str, Any] = {"step": step} if to is None else {"to": moment(to)}
        path = f"sandbox/clock/{'advance' if to is None else 'set'}"
        return self.unkeyed("POST", path, json_of(ClockMove), Repeat.ONCE, body, {"wait": False})

    def get_clock_move(self, move_id: str) -> Call[ClockMove]:
        """The progress of a move. The last hundred moves are kept."""
        return self.reading(f"sandbox/clock/moves/{segment('move_id', move_id)}", json_of(ClockMove))

    def ready(self) -> Call[None]:
        """Whether the server and its database answer, in one attempt."""
        call = self.reading("readyz", nothing)
        call.retries = 0
        return call


def completed(move: ClockMove) -> ClockMove | None:
    """The move if it has ended, ``None`` if it is in progress. Raises ``ClockMoveError`` if it ended early."""
    if move.error is not None:
        raise ClockMoveError(f"{move.error} (the clock reached {move.now})")
    return move if move.done else None
