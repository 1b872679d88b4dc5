"""Long responses to clients that read slowly, stop reading or leave."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.caller import MANY, STALL_SECONDS, Caller, assert_is_our_error
from support.process import ServerProcess
from support.shops import ENVIRONMENT
from support.waiting import eventually
from support.wire import Wire, head, request

LIST_BYTES = MANY * 11 * 255 * 4  # eleven long fields of four-byte characters


def test_head_of_a_long_list_has_no_body_and_no_wrong_length(long_list: Caller) -> None:
    with long_list.connect() as wire:
        wire.send(request("HEAD", "/customers", long_list.login) + request("GET", "/healthz"))
        answer = wire.answer(to_head=True)
        assert wire.answer().json() == {"status": "ok"}

    assert answer.status == 200
    assert answer.header("content-length") is None  # RFC 9110, 8.6: the length of the GET response, or no length


def _descriptors(process: ServerProcess) -> int:
    return len(os.listdir(f"/proc/{process.worker_pids()[0]}/fd"))


def _resident_bytes(process: ServerProcess) -> int:
    statm = Path(f"/proc/{process.worker_pids()[0]}/statm").read_text()
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def long_stall(long_list: Caller, tmp_path: Path) -> Iterator[Caller]:
    """The shop of ``long_list`` on a server that allows clients to stall for a minute."""
    with ServerProcess(long_list.process.database, tmp_path, environment=ENVIRONMENT) as process:
        yield Caller(process, long_list.credentials)


@pytest.fixture
def idle(long_list: Caller) -> Caller:
    """The server of ``long_list`` without other connections, after all lazy initialization."""
    for _ in range(2):
        assert len(long_list.get("/customers").json()) == MANY
    assert eventually(lambda: _deleted_files(long_list.process) == 0)
    time.sleep(1.2)  # connections left open by other tests end with the header timeout
    return long_list


def test_a_long_list_is_complete_and_in_order(long_list: Caller) -> None:
    ids = [customer["id"] for customer in long_list.get("/customers").json()]

    assert ids == [f"cst_{number:016x}" for number in range(MANY)]


def test_a_long_list_is_sent_over_http_1_0(long_list: Caller) -> None:
    with long_list.connect() as wire:
        wire.send(head("GET", "/customers", long_list.login).replace(b"HTTP/1.1", b"HTTP/1.0"))
        received = b""
        while data := wire.read():
            received += data

    assert len(json.loads(received.partition(b"\r\n\r\n")[2])) == MANY


def _slow_readers(caller: Caller, number: int) -> list[Wire]:
    """Clients that request the whole list and do not read the response."""
    wires = []
    for _ in range(number):
        # Connects just before its request, because a connection that waits for the others may reach the header timeout.
        wire = caller.connect(receive_buffer_bytes=4096)
        wires.append(wire)
        wire.send(request("GET", "/customers", caller.login))
        assert wire.read(1024).startswith(b"HTTP/1.1 200 OK")
    return wires


def _deleted_files(process: ServerProcess) -> int:
    """The number of open temporary files of long responses in the server process."""
    found = 0
    for descriptor in Path(f"/proc/{process.worker_pids()[0]}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(descriptor.readlink()).endswith("(deleted)")
    return found


def test_a_long_list_has_a_content_length(long_list: Caller) -> None:
    answer = long_list.get("/customers")

    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("transfer-encoding") is None


def test_clients_that_do_not_read_use_one_descriptor_each_and_no_memory(long_stall: Caller) -> None:
    assert len(long_stall.get("/customers").json()) == MANY
    assert eventually(lambda: _deleted_files(long_stall.process) == 0)
    descriptors, resident = _descriptors(long_stall.process), _resident_bytes(long_stall.process)
    wires = _slow_readers(long_stall, 10)
    try:
        assert eventually(lambda: _deleted_files(long_stall.process) == 10)  # our files are closed, granian's are open
        assert _descriptors(long_stall.process) == descriptors + 2 * 10  # the connection and the file
        assert _resident_bytes(long_stall.process) - resident < LIST_BYTES / 2
        assert long_stall.get("/healthz").status == 200
    finally:
        for wire in wires:
            wire.close()
    assert eventually(lambda: _deleted_files(long_stall.process) == 0)
    assert eventually(lambda: _descriptors(long_stall.process) <= descriptors)


def test_clients_that_do_not_read_are_disconnected(idle: Caller) -> None:
    before = _descriptors(idle.process)
    wires = _slow_readers(idle, 3)
    try:
        assert _descriptors(idle.process) > before
        assert eventually(lambda: _deleted_files(idle.process) == 0), "they hold files for ever"
        assert eventually(lambda: _descriptors(idle.process) <= before), "they hold descriptors for ever"
    finally:
        for wire in wires:
            wire.close()


def test_an_interrupted_list_is_shorter_than_its_content_length(long_list: Caller) -> None:
    (wire,) = _slow_readers(long_list, 1)
    with wire:
        assert eventually(lambda: _deleted_files(long_list.process) == 0)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := wire.read():
                received += len(data)

    assert received < LIST_BYTES


def test_a_client_that_reads_slowly_gets_the_whole_list(long_list: Caller) -> None:
    """The whole response takes longer than the stall limit."""
    received = 0
    started = time.monotonic()
    with long_list.connect() as wire:
        wire.send(request("GET", "/customers", long_list.login))
        while b"]" not in (data := wire.read(400_000)):
            assert data
            received += len(data)
            time.sleep(0.03)

    assert received > LIST_BYTES - 400_000
    assert time.monotonic() - started > STALL_SECONDS


def test_clients_that_disconnect_during_a_list_leak_nothing(idle: Caller) -> None:
    descriptors, resident = _descriptors(idle.process), _resident_bytes(idle.process)

    for wire in _slow_readers(idle, 20):
        wire.close()

    assert eventually(lambda: _deleted_files(idle.process) == 0)
    assert eventually(lambda: _descriptors(idle.process) <= descriptors)
    assert _resident_bytes(idle.process) - resident < LIST_BYTES / 2
    assert len(idle.get("/customers").json()) == MANY


def test_a_client_that_reads_slowly_with_a_full_buffer_keeps_its_connection(long_list: Caller) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)  # as on a network; the size on loopback is 64 KiB
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.connect(("127.0.0.1", long_list.process.port))
        client.sendall(request("GET", "/customers", long_list.login))
        until = time.monotonic() + 4 * STALL_SECONDS
        while time.monotonic() < until:
            assert client.recv(4096)
            time.sleep(0.1)  # the client is slower than the network


def test_a_long_list_without_a_temporary_file_gets_503(long_list: Caller, tmp_path: Path) -> None:
    """The folder of temporary files is deleted; other requests still work."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**ENVIRONMENT, "TMPDIR": str(folder)}
    with ServerProcess(long_list.process.database, tmp_path, environment=environment) as process:
        caller = Caller(process, long_list.credentials)
        assert len(caller.get("/customers").json()) == MANY
        assert not [left for left in folder.iterdir() if not left.name.startswith("ecomcharge-metrics-")]
        for left in folder.iterdir():
            shutil.rmtree(left)
        folder.rmdir()

        answer = caller.get("/customers")
        assert_is_our_error(answer, 503)
        assert answer.header("retry-after")
        assert caller.get("/customers?limit=1").status == 200
        assert "no temporary file for a long response" in process.log()
