"""SQL of the sandbox clock and its moves.

The database has one clock. A change names the setting that was read, and changes nothing if the clock has another setting.
"""

from __future__ import annotations

from typing import Final

from ecomcharge.sandbox.model import Move, Setting
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.storage.statements import Insert, PointRead

FIND_CLOCK = PointRead("sandbox_clock", ("frozen_at", "ahead"), key=("name",))

# Not an Insert: the row of another process could be taken for the one of this transaction when its outcome is looked up.
INSERT_CLOCK = "INSERT INTO sandbox_clock (name, frozen_at, ahead) VALUES (:name, NULL, 0) ON CONFLICT DO NOTHING"

# Not during a move.
CHANGE_CLOCK = """
UPDATE sandbox_clock SET frozen_at = :frozen_at, ahead = :ahead, move_id = NULL
WHERE name = :name AND leased_until <= :real_now
AND COALESCE(frozen_at, -1) = :frozen_before AND ahead = :ahead_before
"""

# During a move, by the move.
CHANGE_CLOCK_IN_MOVE = """
UPDATE sandbox_clock SET frozen_at = :frozen_at, ahead = :ahead
WHERE name = :name AND move_id = :id AND COALESCE(frozen_at, -1) = :frozen_before AND ahead = :ahead_before
"""

FIND_MOVE_OF_CLOCK = PointRead("sandbox_clock", ("move_id",), key=("name",))

ACQUIRE_CLOCK = """
UPDATE sandbox_clock SET move_id = :id, leased_until = :leased_until WHERE name = :name AND leased_until <= :real_now
"""

RENEW_CLOCK = "UPDATE sandbox_clock SET leased_until = :leased_until WHERE name = :name AND move_id = :id"

# Clears move_id, so that a renewal in progress changes nothing.
RELEASE_CLOCK = "UPDATE sandbox_clock SET leased_until = 0, move_id = NULL WHERE name = :name AND move_id = :id"

INSERT_MOVE = Insert("clock_moves", ("id", "created_at", "leased_until"), key=("id",))

OLD_MOVES = "SELECT id FROM clock_moves ORDER BY id DESC LIMIT :limit OFFSET :kept"

DELETE_OLD_MOVE = "DELETE FROM clock_moves WHERE id = :id AND (ended_at IS NOT NULL OR leased_until <= :real_now)"

FIND_MOVE = PointRead("clock_moves", ("id", "from_at", "to_at", "now_at", "leased_until", "ended_at", "error"), key=("id",))

BEGIN_MOVE = "UPDATE clock_moves SET from_at = :now, to_at = :target, now_at = :now WHERE id = :id"

RENEW_MOVE = "UPDATE clock_moves SET leased_until = :leased_until WHERE id = :id AND ended_at IS NULL"

SET_PROGRESS = "UPDATE clock_moves SET now_at = :now WHERE id = :id"

END_MOVE = "UPDATE clock_moves SET ended_at = :real_now, error = :error WHERE id = :id AND ended_at IS NULL"

_CLOCK: Final = "clock"  # the name of the only row of sandbox_clock


async def find_setting(database: Database) -> Setting:
    row = await database.find(FIND_CLOCK, (_CLOCK,))
    return Setting(*row) if row is not None else Setting()


async def change_setting(tx: Transaction, before: Setting, after: Setting, real_now: int) -> bool:
    """``False`` if the clock has another setting than ``before``, or if a move is in progress."""
    await _insert_clock(tx)
    return await tx.run(CHANGE_CLOCK, {**_change(before, after), "real_now": real_now}) > 0


async def change_setting_in_move(tx: Transaction, move_id: str, before: Setting, after: Setting, now: int) -> bool:
    """Also records ``now`` as the progress of the move. ``False`` if the clock has another setting or another move."""
    if not await tx.run(CHANGE_CLOCK_IN_MOVE, {**_change(before, after), "id": move_id}):
        return False
    await tx.run(SET_PROGRESS, {"id": move_id, "now": now})
    return True


def _change(before: Setting, after: Setting) -> dict[str, object]:
    return {
        "name": _CLOCK,
        "frozen_at": after.frozen_at,
        "ahead": after.ahead,
        "frozen_before": -1 if before.frozen_at is None else before.frozen_at,
        "ahead_before": before.ahead,
    }


async def _insert_clock(tx: Transaction) -> None:
    """Insert a clock that shows the real time, if there is no clock."""
    await tx.run(INSERT_CLOCK, {"name": _CLOCK})


async def move_of_clock(database: Database) -> str | None:
    """The id of the move that holds the clock."""
    row = await database.find(FIND_MOVE_OF_CLOCK, (_CLOCK,))
    return None if row is None else row[0]


async def acquire_clock(tx: Transaction, move_id: str, real_now: int, leased_until: int) -> bool:
    """``False`` if another move holds the clock."""
    await _insert_clock(tx)
    return await tx.run(ACQUIRE_CLOCK, {"name": _CLOCK, "id": move_id, "real_now": real_now, "leased_until": leased_until}) > 0


async def insert_move(tx: Transaction, move_id: str, created_at: int, leased_until: int) -> bool:
    """``False`` if the id is taken."""
    return await tx.insert(INSERT_MOVE, (move_id, created_at, leased_until))


async def delete_old_moves(tx: Transaction, kept: int, limit: int, real_now: int) -> None:
    old = await tx.rows(OLD_MOVES, {"kept": kept, "limit": limit})
    await tx.run_many(DELETE_OLD_MOVE, [{"id": row[0], "real_now": real_now} for row in old])


async def find_move(database: Database, move_id: str) -> Move | None:
    row = await database.find(FIND_MOVE, (move_id,))
    return Move(*row) if row is not None else None


async def begin_move(tx: Transaction, move_id: str, now: int, target: int) -> None:
    await tx.run(BEGIN_MOVE, {"id": move_id, "now": now, "target": target})


async def renew_leases(tx: Transaction, move_id: str, leased_until: int) -> None:
    await tx.run(RENEW_CLOCK, {"name": _CLOCK, "id": move_id, "leased_until": leased_until})
    await tx.run(RENEW_MOVE, {"id": move_id, "leased_until": leased_until})


async def end_move(tx: Transaction, move_id: str, error: str | None, real_now: int) -> None:
    """Also releases the clock."""
    await tx.run(RELEASE_CLOCK, {"name": _CLOCK, "id": move_id})
    await tx.run(END_MOVE, {"id": move_id, "error": error, "real_now": real_now})
