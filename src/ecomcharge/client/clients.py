"""The blocking and the asynchronous client. They retry failed requests, and no retry creates anything twice.

A create sends the same ``Idempotency-Key`` in each attempt: if the first answer was lost, the server repeats the answer and not
the create. ``calls`` decides about requests and retries; the two clients only send and wait.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

import httpx

from ecomcharge.client.calls import Call, Calls
from ecomcharge.client.model import Customer

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)
R = TypeVar("R", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)
PAGE_SIZE: Final = 200


def _next_after(page: list[Customer], page_size: int) -> str | None:
    """The cursor of the next page; ``None`` after the last one, and from a server without pages."""
    return page[-1].id if len(page) == page_size else None


def _blocking(call: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of ``Client`` that makes this call."""

    @functools.wraps(call)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._answer(call(self._calls, *args, **kwargs))

    return method


def _awaitable(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of ``AsyncClient`` that makes this call."""

    @functools.wraps(call)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._answer(call(self._calls, *args, **kwargs))

    return method


class _Connection(Generic[H, R]):
    _open: Callable[..., Any]

    def __init__(
        self,
        base_url: str,
        shop_id: int,
        secret_key: str,
        *,
        timeout_seconds: float = 30.0,
        retries: int = 2,
        transport: R | None = None,
    ) -> None:
        auth = (str(shop_id), secret_key)
        self._http: H = self._open(base_url=base_url, auth=auth, timeout=timeout_seconds, transport=transport)
        self._calls = Calls(self._http, retries)


class Client(_Connection[httpx.Client, httpx.BaseTransport]):
    """A client of one shop. Close it, or use it in a ``with`` statement. Threads may share it.

    ``timeout_seconds`` limits each connect, write and read of each attempt. After the first attempt the client makes at
    most ``retries`` more, after a short wait or the server's ``Retry-After`` (at most 30 seconds). ``transport`` is one of
    httpx, for certificates or proxies of your own. Each call raises ``ApiError`` or ``TransportError``.
    """

    _open = httpx.Client

    create_customer = _blocking(Calls.create_customer)
    get_customer = _blocking(Calls.get_customer)
    list_customers = _blocking(Calls.list_customers)

    def customers(
        self, *, email: str | None = None, external_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> Iterator[Customer]:
        """Every customer in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        after = None
        while True:
            page = self.list_customers(limit=page_size, after=after, email=email, external_id=external_id)
            if page and page[-1].id == after:
                return  # a server without pages sent all of them again
            yield from page
            after = _next_after(page, page_size)
            if after is None:
                return

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self, call: Call[T]) -> T:
        for seconds in call.waits():
            time.sleep(seconds)
            try:
                call.outcome = self._http.send(call.request)
            except httpx.RequestError as error:
                call.outcome = error
        return call.result()


class AsyncClient(_Connection[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """``Client`` for asyncio: the same calls as coroutines. Use it in an ``async with`` statement."""

    _open = httpx.AsyncClient

    create_customer = _awaitable(Calls.create_customer)
    get_customer = _awaitable(Calls.get_customer)
    list_customers = _awaitable(Calls.list_customers)

    async def customers(
        self, *, email: str | None = None, external_id: str | None = None, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[Customer]:
        """Every customer in order of creation, with ``page_size`` (1 to 1000) of them in memory at a time."""
        after = None
        while True:
            page = await self.list_customers(limit=page_size, after=after, email=email, external_id=external_id)
            if page and page[-1].id == after:
                return
            for customer in page:
                yield customer
            after = _next_after(page, page_size)
            if after is None:
                return

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _answer(self, call: Call[T]) -> T:
        for seconds in call.waits():
            await asyncio.sleep(seconds)
            try:
                call.outcome = await self._http.send(call.request)
            except httpx.RequestError as error:
                call.outcome = error
        return call.result()
