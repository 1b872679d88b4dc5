"""Positions in the log of PostgreSQL, by which the age of a standby is known.

The rule compares positions, not times, so that it holds with an idle primary, with a standby that lost its primary, and with
clocks that differ. A process notes the position of the primary twice a second. A standby that has replayed such a position, in
the same timeline, has every write that was acknowledged before the position was asked for.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

NOTE_SECONDS: Final = 0.5  # between two positions of the primary
KEPT_SECONDS: Final = 600

# The same in a primary and in its standbys: the cluster, the database and the table.
_IDENTITY: Final = """
(SELECT system_identifier FROM pg_control_system()),
(SELECT oid::bigint FROM pg_database WHERE datname = current_database()), to_regclass('customers')::oid::bigint
"""

# A write with synchronous_commit off is acknowledged before its log is flushed. Otherwise the flushed position is better: an
# idle primary may keep a rest that it neither flushes nor sends.
OF_PRIMARY: Final = f"""
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,
(CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END
- '0/0')::bigint, {_IDENTITY}
"""

# Only a role with pg_read_all_stats sees the timeline of the receiver. That of the control file is up to date after the next
# restartpoint; until then the timeline is too low, and the primary is read.
OF_STANDBY: Final = f"""
SELECT pg_is_in_recovery(), COALESCE(
    (SELECT received_tli FROM pg_stat_wal_receiver),
    (SELECT GREATEST(timeline_id, min_recovery_end_timeline) FROM pg_control_checkpoint(), pg_control_recovery())
), (pg_last_wal_replay_lsn() - '0/0')::bigint, {_IDENTITY}
"""


class Position(NamedTuple):
    """A position in the log of a timeline, in bytes."""

    timeline: int
    location: int


class Positions:
    """The positions of the primary, each with the time before which it was asked for (seconds of a monotonic clock)."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, Position]] = deque(maxlen=int(KEPT_SECONDS / NOTE_SECONDS))

    def note(self, asked_at: float, position: Position) -> None:
        if self._noted and self._noted[-1][1] == position:
            self._noted.pop()  # the primary is idle
        self._noted.append((asked_at, position))

    def time_of(self, replayed: Position) -> float | None:
        """The time before which every acknowledged write is in the standby; ``None`` if it is not known."""
        for asked_at, position in reversed(self._noted):
            if position.timeline == replayed.timeline and position.location <= replayed.location:
                return asked_at
        return None
