"""Measure the start of ``ecomcharge serve``, the memory of its idle processes, and the time of ``--version``.

SQLite with a new database, one server process and the billing worker, both cores. The bytecode is compiled before the
measurement, as after an installation.
"""

from __future__ import annotations

import argparse
import compileall
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from systems import HERE, Ecomcharge

IDLE_SECONDS = 3.0
READY_SECONDS_MAXIMUM = 0.7
IDLE_MEBIBYTES_MAXIMUM = 150
VERSION_SECONDS_MAXIMUM = 0.12


@dataclass
class Figures:
    """Seconds of each round, and MiB of each process by its module in the last round."""

    ready: list[float] = field(default_factory=list)
    version: list[float] = field(default_factory=list)
    resident: dict[str, float] = field(default_factory=dict)
    proportional: dict[str, float] = field(default_factory=dict)


@dataclass
class Starting(Ecomcharge):
    def environment(self) -> dict[str, str]:
        """The environment of the commands, with the compiled bytecode enabled."""
        return {name: value for name, value in super().environment().items() if name != "PYTHONDONTWRITEBYTECODE"}

    def start(self) -> None:
        """Start without a shop. Returns when ``/readyz`` answers 200."""
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                list(self.command()), env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.005)
        raise RuntimeError(f"{self.name} is not ready: {(self.folder / f'{self.name}.log').read_text()}")


def run(rounds: int, folder: Path) -> Figures:
    compileall.compile_dir(HERE.parent / "src", quiet=1)
    figures = Figures()
    for number in range(rounds):
        name = f"start-{number}"
        system = Starting(name, folder, core=None, database=f"sqlite:///{folder}/{name}.db")
        started = time.perf_counter()
        system.start()
        figures.ready.append(time.perf_counter() - started)
        try:
            if number == rounds - 1:
                time.sleep(IDLE_SECONDS)
                read_memory(system, figures)
        finally:
            system.stop()
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ecomcharge", "--version"], env=system.environment(), stdout=subprocess.DEVNULL, check=True
        )
        figures.version.append(time.perf_counter() - started)
        print(f"round {number + 1}  ready {figures.ready[-1]:.2f} s  version {figures.version[-1]:.3f} s", flush=True)
    return figures


def read_memory(system: Ecomcharge, figures: Figures) -> None:
    assert system.process is not None
    supervisor = psutil.Process(system.process.pid)
    for process in [supervisor, *supervisor.children(recursive=True)]:
        arguments = process.cmdline()
        module = arguments[arguments.index("-m") + 1] if "-m" in arguments else " ".join(arguments[1:3])
        memory = process.memory_full_info()
        figures.resident[module] = figures.resident.get(module, 0) + memory.rss / 2**20
        figures.proportional[module] = figures.proportional.get(module, 0) + memory.pss / 2**20


def report(figures: Figures) -> str:
    ready, version = statistics.median(figures.ready), statistics.median(figures.version)
    resident, proportional = sum(figures.resident.values()), sum(figures.proportional.values())
    lines = [
        "## Start and size",
        "",
        f"SQLite, a new database, one server process and its billing worker, both cores, {len(figures.ready)} rounds, median and"
        " spread. Resident memory (RSS) counts pages that several processes share once for each of them; proportional memory"
        " (PSS) counts them once. The bound is for resident memory, three seconds after the start.",
        "",
        "| | | target | |",
        "|---|---|---|---|",
        f"| from the command to 200 of `/readyz`, s | {ready:.2f} ({min(figures.ready):.2f} to {max(figures.ready):.2f})"
        f" | {READY_SECONDS_MAXIMUM} | {_verdict(ready <= READY_SECONDS_MAXIMUM)} |",
        f"| `ecomcharge --version`, s | {version:.3f} ({min(figures.version):.3f} to {max(figures.version):.3f})"
        f" | {VERSION_SECONDS_MAXIMUM} | {_verdict(version <= VERSION_SECONDS_MAXIMUM)} |",
        f"| resident memory of all processes, MiB | {resident:.0f} | {IDLE_MEBIBYTES_MAXIMUM}"
        f" | {_verdict(resident <= IDLE_MEBIBYTES_MAXIMUM)} |",
        f"| proportional memory of all processes, MiB | {proportional:.0f} | | |",
    ]
    lines += [
        f"| resident memory of `{module}`, MiB | {mebibytes:.0f} | | |" for module, mebibytes in sorted(figures.resident.items())
    ]
    return "\n".join(lines) + "\n"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ecomcharge-start-") as folder:
        print(report(run(options.rounds, Path(folder))))


if __name__ == "__main__":
    main()
