"""Sends a webhook by HTTP to the receiver's host name, but only over IP addresses that were checked first."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, Final

import httpcore
import httpx

from ecomcharge.webhooks.model import Unreachable, is_public

TIMEOUT_SECONDS: Final = 15.0
CONNECT_SECONDS: Final = 5.0  # for one address; then the next address of the name is tried
IDLE_SECONDS: Final = 3.0  # how long a connection is kept for the next webhook; many receivers close theirs after five
REST_BYTES: Final = 64 * 1024  # how much of an answer's body is read, so that the connection can be kept
REST_SECONDS: Final = 2.0
FAULT_MAXIMUM: Final = 200
_USER_AGENT: Final = f"ecomcharge/{version('ecomcharge')}"
_FAULTS: Final = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


class Refused(Exception):
    """The address must not receive webhooks."""


class Sender:
    """Posts to receivers, at most ``at_once``. TLS is verified against the name; redirects and proxies are not followed.

    The trusted certificates are those of certifi, or of SSL_CERT_FILE or SSL_CERT_DIR.
    """

    def __init__(self, at_once: int, *, allow_private: bool) -> None:
        self._addresses = _Addresses(at_once, allow_private=allow_private)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=at_once,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=self._addresses,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int | None, str | None]:
        """The status of the receiver, or the reason for none; ``Unreachable`` if an immediate retry would not help."""
        status = None
        try:
            target = httpx.URL(url)
            where = httpcore.URL(
                scheme=target.raw_scheme,
                host=target.raw_host,
                port=target.port or (443 if target.scheme == "https" else 80),
                target=target.raw_path,
            )
            sent: list[tuple[bytes | str, bytes | str]] = [("Host", target.netloc), ("User-Agent", _USER_AGENT), *headers.items()]
            async with asyncio.timeout(TIMEOUT_SECONDS), self._pool.stream("POST", where, headers=sent, content=body) as response:
                status = response.status
                await _take_the_rest(response)
        except TimeoutError:
            return status, None if status else Unreachable(f"no answer within {TIMEOUT_SECONDS:.0f} seconds")
        except (httpcore.ConnectError, httpcore.ConnectTimeout, Refused) as error:
            return status, None if status else Unreachable(_sentence(error))
        except (*_FAULTS, httpx.InvalidURL, OSError, UnicodeError) as error:
            return status, None if status else _sentence(error)
        return status, None

    async def close(self) -> None:
        await self._pool.aclose()
        self._addresses.close()


async def _take_the_rest(response: httpcore.Response) -> None:
    """Read the body. Errors are ignored, because only the status counts."""
    taken = 0
    with contextlib.suppress(TimeoutError, *_FAULTS):
        async with asyncio.timeout(REST_SECONDS):
            async for chunk in response.aiter_stream():
                taken += len(chunk)
                if taken > REST_BYTES:
                    return


def _sentence(error: Exception) -> str:
    text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return text[:FAULT_MAXIMUM]


class _Addresses(httpcore.AsyncNetworkBackend):
    """Connects to the address that was checked, not to the result of a second look-up.

    It works below the connection pool, whose keys are host names: receivers that share an address share no connection.
    """

    def __init__(self, at_once: int, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._network = httpcore.AnyIOBackend()
        # A look-up continues in its thread after its attempt was canceled, so there are more threads than attempts.
        self._resolvers = ThreadPoolExecutor(2 * at_once, thread_name_prefix="webhook-names")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises ``Refused`` if webhooks may go to none of the addresses."""
        addresses = await self._found(host, port)
        if not self._allow_private:
            addresses = [address for address in addresses if is_public(address.partition("%")[0])]
        if not addresses:
            raise Refused("the address is not public; --webhooks-to-private-addresses allows it")
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, CONNECT_SECONDS, local_address, socket_options)
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def _found(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the system's order of preference."""
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        loop = asyncio.get_running_loop()
        try:
            # Not the resolver of the event loop: a dead name server would block all of its few threads.
            found = await loop.run_in_executor(self._resolvers, _look_up, host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise Refused(f"the name cannot be resolved: {error}") from error
        return list(dict.fromkeys(found))

    def close(self) -> None:
        self._resolvers.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
