"""Run commands on the database of a test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

Command = Callable[..., subprocess.CompletedProcess[str]]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the sentence that a refused command printed."""
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("ecomcharge: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("ecomcharge: ").strip()
