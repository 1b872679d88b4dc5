"""Build requests with credentials, without a server."""

from __future__ import annotations

from ecomcharge.web.messages import Request


class Caller(Request):
    """A request that has only headers and an address."""

    def __init__(self, headers: dict[str, str], address: str = "127.0.0.1") -> None:
        super().__init__("GET", "/customers", "", headers.get)
        self._address = address

    def peer(self) -> str:
        return self._address

    def all_of(self, name: str) -> str:
        return self.header(name) or ""
