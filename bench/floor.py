"""The floor: granian with a constant answer of a customer's size, by both of its interfaces."""

from __future__ import annotations

from typing import Any

BODY = (
    b'{"id":"cst_7aee5afb954c7ef7","first_name":"John","last_name":"Doe","address":"1st Street","country":"US","city":"Denver",'
    b'"zip":"92006","state":"CO","phone":"+1-555-555-5555","email":"customer@example.com","ip":"127.0.0.1","external_id":null}'
)
HEADERS = [("content-type", "application/json; charset=utf-8")]
RAW_HEADERS = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", str(len(BODY)).encode())]


async def rsgi(scope: Any, protocol: Any) -> None:
    protocol.response_bytes(200, HEADERS, BODY)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS})
    await send({"type": "http.response.body", "body": BODY})
