"""Merges the segments of an index of terms (FTS5), in small steps.

Each commit adds a segment of level 0, and a look-up of a term visits all segments. When FTS5 writes, it merges eight of a level
to one of the next level, so a million customers have 16. Its command ``merge`` writes about so many pages: it merges the level
with the most segments, and then others, if they have at least ``usermerge`` of them. A negative number begins to merge all
segments to one (https://www.sqlite.org/fts5.html#the_merge_command).

While all are merged, a commit that writes may have to merge up to 64 pages for each level, and each merge of all adds a level.
With 45 levels a commit took 100 ms. So it is for imports and upgrades only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ecomcharge.storage.database import Transaction
from ecomcharge.storage.statements import TermIndex

PAGES_PER_STEP: Final = 16  # 3 ms of processor time at most, in which other units wait
MOST_LEVELS: Final = 20  # to merge all
SMALLER_PART: Final = 4  # merge if the others have this part of the largest segment's pages
AUTOMERGE: Final = 8  # segments of a level that FTS5 merges when it writes (migration 0010)

_COOKIE_BYTES: Final = 4


class Level(NamedTuple):
    """``merging``: the number of segments that an unfinished merge reads. ``pages``: of each segment."""

    merging: int
    pages: Sequence[int]


class Step(NamedTuple):
    """The arguments of ``merge`` and ``usermerge``."""

    pages: int
    usermerge: int


def structure_sql(index: TermIndex) -> str:
    """The statement whose only row has the structure of the index: fts5_index.c of SQLite describes the format."""
    return f"SELECT block FROM {index.table}_data WHERE id = 10"


def levels_of(structure: bytes) -> list[Level]:
    """The levels of an index, from level 0."""
    numbers = _varints(structure[_COOKIE_BYTES:])
    level_count, _segment_count, _pages_written = next(numbers), next(numbers), next(numbers)
    return [_level(numbers) for _ in range(level_count)]


def _level(numbers: Iterator[int]) -> Level:
    merging, segment_count = next(numbers), next(numbers)
    segments = [(next(numbers), next(numbers), next(numbers)) for _ in range(segment_count)]
    return Level(merging, [last - first + 1 for _id, first, last in segments])


def next_step(levels: Sequence[Level], *, all_segments: bool) -> Step | None:
    """``None`` if nothing is left to merge, or the merge would rewrite a large segment for a few pages of others."""
    usermerge = next((count for count in range(2, AUTOMERGE) if _is_cheap(levels, count)), AUTOMERGE)
    is_merging = any(level.merging for level in levels)
    pages = [each for level in levels for each in level.pages]
    if all_segments and not is_merging and len(levels) <= MOST_LEVELS and _are_similar(pages):
        return Step(-PAGES_PER_STEP, usermerge)
    return Step(PAGES_PER_STEP, usermerge) if _merges(levels, usermerge) else None


def _is_cheap(levels: Sequence[Level], usermerge: int) -> bool:
    """Whether each level that a merge would begin with has segments of similar size.

    The merge of a level adds a segment to the next one. An unfinished merge has added it, with a part of the pages.
    """
    output: list[int] = []
    unfinished = 0
    for level in levels:
        segments = [*level.pages, *output]
        output = []
        if unfinished:
            segments[-1] += unfinished
        unfinished = sum(level.pages[: level.merging])
        if not unfinished and len(segments) >= usermerge:
            if not _are_similar(segments):
                return False
            output = [sum(segments)]
    return True


def _merges(levels: Sequence[Level], usermerge: int) -> bool:
    """Whether FTS5 finds a level to merge: an unfinished one, or the lower level with the most segments if it has more."""
    most = 0
    for level in levels:
        if level.merging:
            return level.merging > most or most >= usermerge
        most = max(most, len(level.pages))
    return most >= usermerge


def _are_similar(pages: Sequence[int]) -> bool:
    largest = max(pages, default=0)
    return len(pages) > 1 and (sum(pages) - largest) * SMALLER_PART >= largest


async def merge_some(tx: Transaction, index: TermIndex, *, all_segments: bool) -> bool:
    """Do the next step. ``False`` if there was nothing to do."""
    ((structure,),) = await tx.rows(structure_sql(index), {})
    step = next_step(levels_of(structure), all_segments=all_segments)
    if step is None:
        return False
    if [(step.usermerge,)] != list(await tx.rows(f"SELECT v FROM {index.table}_config WHERE k = 'usermerge'", {})):
        await _command(tx, index, "usermerge", step.usermerge)
    await _command(tx, index, "merge", step.pages)
    return bool((await tx.rows(structure_sql(index), {}))[0][0] != structure)


async def _command(tx: Transaction, index: TermIndex, name: str, argument: int) -> None:
    sql = f"INSERT INTO {index.table} ({index.table}, rank) VALUES (:name, :argument)"
    await tx.run(sql, {"name": name, "argument": argument})


def _varints(data: bytes) -> Iterator[int]:
    """Numbers of seven bits in each byte, the highest bits first; the last byte of a number is below 128."""
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            yield value
            value = 0
