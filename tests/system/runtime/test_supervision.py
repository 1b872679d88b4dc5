"""A server process that dies is replaced; the server ends only when its processes cannot start."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from support.process import ServerProcess
from support.shops import ENVIRONMENT, Start
from support.waiting import eventually


def deaths(process: ServerProcess) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in process.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "a server process ended and is replaced"]


def runs(process: ServerProcess) -> bool:
    assert process.process is not None
    return process.process.poll() is None


def new_pids(process: ServerProcess, count: int, old: set[int]) -> bool:
    return not runs(process) or len(set(process.worker_pids()) - old) == count


def test_the_only_server_process_is_replaced_after_each_of_four_deaths_in_a_row(start: Start) -> None:
    process = start()
    killed: set[int] = set()
    for _ in range(4):  # kill the next one immediately after its start, before it responds; it starts within two seconds
        assert eventually(functools.partial(new_pids, process, 1, killed), 30)
        assert runs(process), process.log()
        (pid,) = set(process.worker_pids()) - killed
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)

    assert eventually(lambda: process.answers() or not runs(process), 30)
    assert runs(process), process.log()
    assert [(line["signal"], line["worker"]) for line in deaths(process)] == [("SIGKILL", 1)] * 4
    delays = [line["delay_seconds"] for line in deaths(process)]
    assert delays == sorted(delays)
    assert delays[0] < delays[-1]
    assert process.stop() == 0


def test_one_server_process_serves_while_the_other_dies_repeatedly(start: Start) -> None:
    process = start("--workers", "2")
    assert eventually(lambda: len(process.worker_pids()) == 2, 10)
    other = process.worker_pids()[1]
    killed: set[int] = {process.worker_pids()[0]}
    os.kill(process.worker_pids()[0], signal.SIGKILL)
    for _ in range(3):
        assert eventually(functools.partial(new_pids, process, 1, {other, *killed}), 30)
        assert runs(process), process.log()
        (pid,) = set(process.worker_pids()) - {other, *killed}
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
        assert eventually(process.answers, 10)

    assert eventually(lambda: len(set(process.worker_pids()) - killed) == 2, 30)
    assert other in process.worker_pids()
    assert process.stop() == 0


def test_two_server_processes_that_die_together_are_replaced(start: Start) -> None:
    process = start("--workers", "2")
    assert eventually(lambda: len(process.worker_pids()) == 2, 10)
    killed: set[int] = set()
    for _ in range(2):
        assert eventually(functools.partial(new_pids, process, 2, killed), 30)
        assert runs(process), process.log()
        for pid in set(process.worker_pids()) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    assert eventually(lambda: len(set(process.worker_pids()) - killed) == 2, 30)
    assert eventually(process.answers, 30)
    assert process.stop() == 0


def test_sigterm_ends_a_server_whose_process_is_being_replaced(start: Start) -> None:
    process = start()
    for _ in range(4):  # so that the next one starts only after a delay
        assert eventually(lambda: len(process.worker_pids()) == 1 or not runs(process), 30)
        os.kill(process.worker_pids()[0], signal.SIGKILL)
        assert eventually(lambda: not process.worker_pids() or not runs(process), 10)
    assert runs(process), process.log()

    assert process.stop() == 0


def test_sighup_starts_new_server_processes(start: Start) -> None:
    process = start()
    old = set(process.worker_pids())
    assert process.process is not None

    process.process.send_signal(signal.SIGHUP)

    assert eventually(lambda: len(process.worker_pids()) == 1 and not old & set(process.worker_pids()), 30)
    assert eventually(process.answers, 10)
    assert deaths(process) == []
    (pid,) = process.worker_pids()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: bool(set(process.worker_pids()) - {pid}), 30)
    assert eventually(process.answers, 30)
    assert process.stop() == 0


def test_a_server_whose_processes_cannot_start_ends_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(  # every server process runs it before anything else
        "import os, sys\nif 'ecomcharge.runtime.server' in sys.orig_argv: os._exit(3)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "ecomcharge", "serve", "--database", f"sqlite:///{tmp_path}/test.db"),
            *("--port", str(port), "--no-worker", "--log-format", "json"),
        ],
        env={**environment, **ENVIRONMENT, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ecomcharge: no server process could start")
    assert "Traceback" not in ended.stderr
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2)


def test_a_process_that_dies_repeatedly_leaves_one_metrics_file(tmp_path: Path) -> None:
    database, environment = f"sqlite:///{tmp_path}/test.db", {**ENVIRONMENT, "TMPDIR": str(tmp_path)}
    with ServerProcess(database, tmp_path, "--worker", environment=environment) as process:
        for times in range(1, 4):
            assert eventually(lambda: process.answers() or not runs(process), 30)
            assert httpx.get(f"{process.url}/nowhere", timeout=10).status_code == 404
            assert eventually(lambda times=times: unmatched_requests(process) == times, 10)  # type: ignore[misc]
            for child in psutil.Process(process.process.pid).children():  # type: ignore[union-attr]
                if child.pid in process.worker_pids() or "ecomcharge.runtime.worker_process" in child.cmdline():
                    child.kill()
        assert eventually(lambda: process.answers(), 30)
        assert eventually(lambda: unmatched_requests(process) == 3, 10)
        assert eventually(lambda: len(list(tmp_path.glob("ecomcharge-metrics-*/*.json"))) == 2, 10)


def unmatched_requests(process: ServerProcess) -> int:
    try:
        text = httpx.get(f"{process.url}/metrics", timeout=10).text
    except httpx.TransportError:
        return -1
    name = 'ecomcharge_request_duration_seconds_count{method="GET",route="-",status="404"} '
    return sum(int(float(line.removeprefix(name))) for line in text.splitlines() if line.startswith(name))
