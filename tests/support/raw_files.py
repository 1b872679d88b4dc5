"""Read the raw bytes of files that a running server uses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and of its folders. A folder that disappears meanwhile is left out."""
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def contents(files: Iterable[Path]) -> Iterator[tuple[Path, bytes]]:
    """Each file with its bytes. A file that the server deletes or renames meanwhile is left out."""
    for file in files:
        try:
            yield file, file.read_bytes()
        except FileNotFoundError:
            continue
