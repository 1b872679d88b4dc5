"""The format of what libraries log."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import asyncio, gc, warnings
from ecomcharge.base.logs import configure_logging

async def fail():
    raise OSError("of a driver")

async def forget():
    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)

configure_logging("json")
asyncio.run(forget())
gc.collect()
warnings.warn("of a library")
"""


def test_an_exception_that_nobody_awaits_and_a_warning_are_json_lines() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    [exception, warning] = map(json.loads, done.stderr.splitlines())
    assert exception["level"] == "error"
    assert "OSError: of a driver" in exception["exception"]
    assert warning["level"] == "warning"
    assert "of a library" in warning["event"]
