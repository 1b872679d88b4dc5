"""A request that is refused before its body is read leaves its connection usable."""

from __future__ import annotations

import time
from http.client import HTTPConnection

import pytest

from support.process import ServerProcess


@pytest.mark.parametrize("path", ["/customers", "/no/such/path"])
def test_a_connection_serves_the_next_request_after_a_refusal(server_process: ServerProcess, path: str) -> None:
    """Many clients send the headers and the body apart."""
    connection = HTTPConnection("127.0.0.1", server_process.port, timeout=10)
    connection.connect()
    connection.auto_open = False
    for _ in range(3):
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "2")
        connection.endheaders()
        time.sleep(0.1)
        connection.send(b"{}")
        response = connection.getresponse()
        response.read()
        assert response.status in (401, 404)
    connection.close()


def test_a_client_that_does_not_send_its_body_gets_the_refusal(server_process: ServerProcess) -> None:
    connection = HTTPConnection("127.0.0.1", server_process.port, timeout=10)
    connection.putrequest("POST", "/customers")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()
