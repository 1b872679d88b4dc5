"""Response files share the file descriptors of a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import convert

from ecomcharge.base.errors import Unavailable
from ecomcharge.customers import store
from ecomcharge.customers.model import FIELD_NAMES, Customer
from ecomcharge.shops.keys import MasterKey
from ecomcharge.storage.database import Database, Transaction
from ecomcharge.web import response_files
from ecomcharge.web.messages import Response
from ecomcharge.web.response_files import ResponseFile, ResponseFiles, connections_for
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop, with_database
from support.wire import Wire, basic, request

LIMIT = 64
SHOPS = 2
CUSTOMERS = 2000  # more than the socket buffers hold, so that a file stays open while it is sent
CONNECTIONS = 24


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda kind: (LIMIT, LIMIT))


async def write(files: ResponseFiles, body: bytes = b"x") -> ResponseFile:
    return await files.write(Response(200, body, []), "req_1")


@pytest.mark.usefixtures("few_descriptors")
def test_a_response_waits_for_a_descriptor_until_another_file_is_closed() -> None:
    async def run() -> None:
        files = ResponseFiles()
        held = [await write(files) for _ in range(LIMIT // 8)]
        waiting = asyncio.create_task(write(files, b"last"))
        await asyncio.sleep(0)
        assert not waiting.done()
        held.pop().close()
        last = await waiting
        assert Path(last.path).read_bytes() == b"last"
        for file in (*held, last):
            file.close()

    asyncio.run(run())


@pytest.mark.usefixtures("few_descriptors")
def test_a_response_that_waits_too_long_for_a_descriptor_becomes_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_files, "WAIT_SECONDS", 0.01)

    async def run() -> None:
        files = ResponseFiles()
        with contextlib.ExitStack() as stack:
            for _ in range(LIMIT // 8):
                stack.callback((await write(files)).close)
            with pytest.raises(Unavailable):
                await write(files)
        (await write(files)).close()

    asyncio.run(run())


@pytest.mark.usefixtures("few_descriptors")
def test_a_response_that_fails_keeps_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_files, "WAIT_SECONDS", 0.01)

    async def run() -> None:
        files = ResponseFiles()
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.TemporaryFile", lambda **options: os.open("/nonexistent", os.O_RDONLY))
            for _ in range(LIMIT):
                with pytest.raises(Unavailable):
                    await write(files)
        (await write(files)).close()

    asyncio.run(run())


@pytest.mark.usefixtures("few_descriptors")
def test_the_descriptor_of_a_closed_file_is_not_reused_soon() -> None:
    async def run() -> None:
        files = ResponseFiles()
        first = await write(files)
        first.close()
        for _ in range(LIMIT // 4 - 1):
            file = await write(files)
            assert file.descriptor != first.descriptor
            file.close()

    asyncio.run(run())


@pytest.mark.parametrize("descriptors", [128, 256, 1024, 4096, 2**20, resource.RLIM_INFINITY % 2**63])
def test_connections_and_files_fit_into_the_limit(descriptors: int) -> None:
    files = min(descriptors, response_files.HIGHEST_DESCRIPTOR) // 8
    assert 2 * connections_for(descriptors) + response_files.OTHER_DESCRIPTORS + files <= descriptors


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(f"sqlite:///{tmp_path}/test.db", tmp_path, environment=ENVIRONMENT, descriptors=LIMIT) as process:
        yield process


def test_with_few_descriptors_each_client_gets_its_own_shops_list(limited: ServerProcess, master_key: MasterKey) -> None:
    shops = [add_shop(limited.database, master_key) for _ in range(SHOPS)]

    async def fill(database: Database) -> None:
        async def unit(tx: Transaction) -> None:
            for shop in shops:
                for number in range(CUSTOMERS):
                    texts = {**dict.fromkeys(FIELD_NAMES, "x" * 255), "first_name": str(shop.shop_id)}
                    await store.insert(tx, shop.shop_id, convert({"id": f"cst_{number:016x}", **texts}, Customer))

        await database.write(unit)

    with_database(limited.database, fill)
    logins = [("Authorization", basic(shop.shop_id, shop.secret_key)) for shop in shops]
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(limited.port, timeout_seconds=60)) for _ in range(CONNECTIONS)]
        for number, wire in enumerate(wires):
            wire.send(request("GET", "/customers", logins[number % SHOPS], ("Connection", "close")))
        for number, wire in enumerate(wires):
            answer = wire.answer()
            assert answer.status == 200
            assert {customer["first_name"] for customer in json.loads(answer.body)} == {str(shops[number % SHOPS].shop_id)}
            assert len(answer.json()) == CUSTOMERS
    assert "the limit of open files is too low" in limited.log()
