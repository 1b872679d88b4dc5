"""Importing the client changes nothing in the process of its user."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The state of a process that an import could change. The packages that the client needs are imported before.
PROGRAM = """
import asyncio, decimal, gc, locale, logging, os, signal, socket, sys, threading, time, warnings
import email_validator, httpx, msgspec


def state():
    loggers = {name: (one.level, one.handlers, one.disabled, one.propagate)
               for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "logging": (loggers, logging.root.level, list(logging.root.handlers), logging.root.disabled, logging.lastResort,
                    logging.getLoggerClass(), logging.getLogRecordFactory(), logging.raiseExceptions),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": (list(warnings.filters), warnings.showwarning),
        "e-mail": (list(email_validator.SPECIAL_USE_DOMAIN_NAMES), email_validator.TEST_ENVIRONMENT),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, sys.meta_path[:], sys.path[:]),
        "event loop": asyncio.get_event_loop_policy().__class__,
        "interpreter": (gc.get_threshold(), gc.isenabled(), sys.getswitchinterval(), sys.getrecursionlimit(),
                        socket.getdefaulttimeout(), decimal.getcontext().prec, locale.setlocale(locale.LC_ALL)),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
    }


before, modules, started = state(), set(sys.modules), time.process_time()
import IMPORTED
seconds = time.process_time() - started
after = state()
assert [name for name in before if before[name] != after[name]] == []
new = {name for name in set(sys.modules) - modules}
allowed = ("ecomcharge.client",)
unexpected = sorted(name for name in new if name.startswith("ecomcharge.") and not name.startswith(allowed))
assert unexpected == [], unexpected
heavy = {"cryptography", "structlog", "apsw", "asyncpg", "granian", "uvloop", "babel", "jinja2", "cyclopts", "rich"}
assert new & heavy == set(), new & heavy
assert seconds < 0.5, seconds
"""


@pytest.mark.parametrize("imported", ["ecomcharge", "ecomcharge.client"])
def test_an_import_changes_nothing_in_the_process(imported: str) -> None:
    program = PROGRAM.replace("IMPORTED", imported)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_client_needs_only_its_own_packages() -> None:
    program = "import sys, ecomcharge.client; print(*sorted(name for name in sys.modules if '.' not in name))"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())
    assert {"ecomcharge", "httpx", "msgspec"} <= loaded
    assert not loaded & {"email_validator", "cryptography", "structlog", "apsw", "asyncpg", "granian", "babel", "jinja2"}


def test_importing_the_package_does_not_import_httpx() -> None:
    program = "import sys, ecomcharge; sys.exit('httpx' in sys.modules or not ecomcharge.__version__)"
    subprocess.run([sys.executable, "-c", program], check=True)
