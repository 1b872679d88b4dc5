"""One HTTP request to a receiver: addresses, TLS, timeouts and persistent connections."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest

from ecomcharge.webhooks import sender
from ecomcharge.webhooks.model import Unreachable
from ecomcharge.webhooks.sender import Sender
from support.certificates import certificate_for
from support.postgres import free_port
from support.receiver import CLOSE, HANG, Receiver


def post(*urls: str, allow_private: bool = True) -> list[tuple[int | None, str | None]]:
    async def work() -> list[tuple[int | None, str | None]]:
        sender = Sender(256, allow_private=allow_private)
        try:
            return await asyncio.gather(*(sender.post(url, {"Authorization": "Basic x"}, b"{}") for url in urls))
        finally:
            await sender.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_a_loopback_address_is_connected_to(receiver: Receiver, host: str) -> None:
    [(status, fault)] = post(f"http://{host}:{receiver.port}/", allow_private=False)
    assert status is None
    assert fault is not None
    assert receiver.connections == 0


def test_credentials_and_fragment_of_a_url_are_not_sent(receiver: Receiver) -> None:
    assert post(f"http://user:secret@127.0.0.1:{receiver.port}/a%20b?c=d#e") == [(200, None)]
    [received] = receiver.received
    assert received.line == "POST /a%20b?c=d HTTP/1.1"
    assert received.headers["authorization"] == "Basic x"
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert b"secret" not in received.head


def test_a_non_ascii_host_name_is_resolved_in_its_ascii_form(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(sender, "_look_up", look_up)
    assert post(f"http://bücher.example:{receiver.port}/ä") == [(200, None)]
    assert asked == ["xn--bcher-kva.example"]
    assert receiver.received[0].headers["host"] == f"xn--bcher-kva.example:{receiver.port}"


def test_the_next_address_of_a_name_is_tried_when_the_first_does_not_answer(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "_look_up", lambda host, port: ["::1", "127.0.0.2", "127.0.0.1"])
    assert post(f"http://shop.example:{receiver.port}/") == [(200, None)]


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://a:99999/", "ftp://a/", "http://a\r\nX: y/", "", "http://", "http://\x00/"]
)
def test_an_invalid_url_is_a_permanent_error(url: str) -> None:
    [(status, fault)] = post(url)
    assert status is None
    assert fault


def test_failed_connections_and_timeouts_count_as_unreachable_and_broken_connections_do_not(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 1.0)
    [(_, refused)], [(_, unknown)] = post(f"http://127.0.0.1:{free_port()}/"), post("http://unknown.invalid/")
    receiver.answer = HANG
    [(_, hung)] = post(receiver.url)
    receiver.answer = CLOSE
    [(_, closed)] = post(receiver.url)
    assert [isinstance(fault, Unreachable) for fault in (refused, unknown, hung, closed)] == [True, True, True, False]


def test_unresolvable_names_delay_no_other_receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int) -> list[str]:
        time.sleep(3)
        return ["127.0.0.1"]

    monkeypatch.setattr(sender, "_look_up", look_up)
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 1.0)

    async def work() -> float:
        sender = Sender(256, allow_private=True)
        dead = [asyncio.create_task(sender.post(f"http://dead{n}.example/", {}, b"{}")) for n in range(200)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await sender.post(receiver.url, {}, b"{}") == (200, None)
        took = time.monotonic() - began
        assert set(await asyncio.gather(*dead)) == {(None, "no answer within 1 seconds")}
        await sender.close()
        return took

    assert asyncio.run(work()) < 1


def test_connections_are_reused_and_released_after_hanging_receivers(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_SECONDS", 0.5)

    async def work() -> None:
        sender = Sender(8, allow_private=True)
        for _ in range(10):
            assert await sender.post(receiver.url, {}, b"{}") == (200, None)
        assert receiver.connections == 1
        receiver.answer = HANG
        for _ in range(2):
            hung = await asyncio.gather(*(sender.post(receiver.url, {}, b"{}") for _ in range(8)))
            assert {status for status, _ in hung} == {None}
        cut = [asyncio.create_task(sender.post(receiver.url, {}, b"{}")) for _ in range(8)]
        await asyncio.sleep(0.2)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        receiver.answer = 200
        assert set(await asyncio.gather(*(sender.post(receiver.url, {}, b"{}") for _ in range(8)))) == {(200, None)}
        await sender.close()

    asyncio.run(work())


def test_tls_is_verified_by_name_and_connections_are_pooled_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certificate_for("one.example", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setattr(sender, "_look_up", lambda host, port: ["127.0.0.1"])
    with Receiver(tls=context) as receiver:
        one, two = (f"https://{name}.example:{receiver.port}/" for name in ("one", "two"))
        [(status, fault)] = post(one)
        assert status is None
        assert "self-signed certificate" in (fault or "")

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

        async def work() -> list[tuple[int | None, str | None]]:
            sender = Sender(8, allow_private=True)
            answers = [await sender.post(url, {}, b"{}") for url in (one, two, one)]
            await sender.close()
            return answers

        good, bad, again = asyncio.run(work())
        assert good == again == (200, None)
        assert bad[0] is None
        assert "Hostname mismatch" in (bad[1] or "")
        assert len(receiver.received) == 2
