"""The blocking and the asynchronous client. They retry failed requests, and no retry creates anything twice.

A create sends the same ``Idempotency-Key`` in each attempt: if the first answer was lost, the server repeats the answer and not
the create. ``calls`` decides about requests and retries; the two clients only send and wait.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx

from ecomcharge.client.billing import BillingCalls
from ecomcharge.client.calls import PROBLEM, Call, Outcome, transport_error
from ecomcharge.client.clock import POLL_SECONDS, ClockCalls, completed
from ecomcharge.client.customers import CustomerCalls
from ecomcharge.client.errors import TransportError, UnavailableError
from ecomcharge.client.model import ClockMove
from ecomcharge.client.pages import Pages

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)
R = TypeVar("R", bound=httpx.BaseTransport | httpx.AsyncBaseTransport)


class Calls(CustomerCalls, BillingCalls, ClockCalls):
    """The calls of the whole API. The methods of both clients are derived from these."""


def _blocking(call: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """The method of ``Client`` that makes this call."""

    @functools.wraps(call)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._answer(call(self._calls, *args, **kwargs))

    return method


def _iterating(pages: Callable[Concatenate[Calls, P], Pages[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """The method of ``Client`` that iterates over these pages."""

    @functools.wraps(pages)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._records(pages(self._calls, *args, **kwargs))

    return method


def _streaming(
    call: Callable[Concatenate[Calls, P], Call[httpx.Response]],
) -> Callable[Concatenate[Client, P], Iterator[bytes]]:
    """The method of ``Client`` that returns the body of the answer in pieces."""

    @functools.wraps(call)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[bytes]:
        return self._pieces(call(self._calls, *args, **kwargs))

    return method


def _awaitable(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """The method of ``AsyncClient`` that makes this call."""

    @functools.wraps(call)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._answer(call(self._calls, *args, **kwargs))

    return method


def _async_iterating(
    pages: Callable[Concatenate[Calls, P], Pages[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    """The method of ``AsyncClient`` that iterates over these pages."""

    @functools.wraps(pages)
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._records(pages(self._calls, *args, **kwargs))

    return method


def _async_streaming(
    call: Callable[Concatenate[Calls, P], Call[httpx.Response]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[bytes]]:
    """The method of ``AsyncClient`` that returns the body of the answer in pieces."""

    @functools.wraps(call)
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[bytes]:
        return self._pieces(call(self._calls, *args, **kwargs))

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
        problem_details: bool = False,
        transport: R | None = None,
    ) -> None:
        self._http: H = self._open(
            base_url=base_url,
            auth=(str(shop_id), secret_key),
            timeout=timeout_seconds,
            transport=transport,
            headers={"accept": f"{PROBLEM}, application/json"} if problem_details else {"accept": "application/json"},
        )
        self._calls = Calls(self._http, retries)


class Client(_Connection[httpx.Client, httpx.BaseTransport]):
    """A client of one shop. Close it, or use it in a ``with`` statement. Threads may share it.

    ``timeout_seconds`` limits each connect, write and read of each attempt. After the first attempt the client makes at
    most ``retries`` more, after a short wait or the server's ``Retry-After`` (at most 30 seconds). While an earlier attempt
    with the same idempotency key is running, it asks for about half a minute. With ``problem_details``, errors of fields have
    codes and rules (``faults``). ``transport`` is one of httpx, for certificates or proxies of your own.

    Each call raises ``ApiError`` or ``TransportError``.
    """

    _open = httpx.Client

    create_customer = _blocking(Calls.create_customer)
    get_customer = _blocking(Calls.get_customer)
    get_customer_by_external_id = _blocking(Calls.get_customer_by_external_id)
    refresh_customer = _blocking(Calls.refresh_customer)
    get_or_create_customer = _blocking(Calls.get_or_create_customer)
    update_customer = _blocking(Calls.update_customer)
    replace_customer = _blocking(Calls.replace_customer)
    delete_customer = _blocking(Calls.delete_customer)
    export_customer = _streaming(Calls.export_customer)
    list_customers = _blocking(Calls.list_customers)
    customers = _iterating(Calls.customers)
    count_customers = _blocking(Calls.count_customers)

    create_plan = _blocking(Calls.create_plan)
    get_plan = _blocking(Calls.get_plan)
    list_plans = _blocking(Calls.list_plans)
    plans = _iterating(Calls.plans)
    count_plans = _blocking(Calls.count_plans)

    create_subscription = _blocking(Calls.create_subscription)
    get_subscription = _blocking(Calls.get_subscription)
    list_subscriptions = _blocking(Calls.list_subscriptions)
    subscriptions = _iterating(Calls.subscriptions)
    count_subscriptions = _blocking(Calls.count_subscriptions)
    cancel_subscription = _blocking(Calls.cancel_subscription)

    list_events = _blocking(Calls.list_events)
    events = _iterating(Calls.events)
    count_events = _blocking(Calls.count_events)

    get_clock = _blocking(Calls.get_clock)
    freeze_clock = _blocking(Calls.freeze_clock)
    resume_clock = _blocking(Calls.resume_clock)
    start_clock_move = _blocking(Calls.start_clock_move)
    get_clock_move = _blocking(Calls.get_clock_move)

    def advance_clock(self, step: str) -> ClockMove:
        """Move the sandbox clock by a step such as ``31d``. Everything that becomes due on the way is done on return.

        Raises ``ClockMoveError`` if the move ended early.
        """
        return self.wait_for_clock(self.start_clock_move(step=step))

    def set_clock(self, to: datetime | str) -> ClockMove:
        """Move the sandbox clock to a time, as ``advance_clock`` does. An earlier time only sets the clock."""
        return self.wait_for_clock(self.start_clock_move(to=to))

    def wait_for_clock(self, move: ClockMove) -> ClockMove:
        """Return when a move has ended. Raises ``ClockMoveError`` if it ended early."""
        while (done := completed(move)) is None:
            time.sleep(POLL_SECONDS)
            move = self.get_clock_move(move.id)
        return done

    def wait_until_ready(self, timeout_seconds: float = 30.0) -> None:
        """Return when the server and its database answer. Raises the last error after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return self._answer(self._calls.ready())
            except (TransportError, UnavailableError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _answer(self, call: Call[T]) -> T:
        for seconds in call.waits():
            time.sleep(seconds)
            call.outcome = self._attempt(call.request)
        return call.result()

    def _attempt(self, request: httpx.Request, *, stream: bool = False) -> Outcome:
        """One attempt. With ``stream`` the body of a success is not read."""
        try:
            response = self._http.send(request, stream=stream)
            if not response.is_success:
                response.read()
        except httpx.RequestError as error:
            return error
        return response

    def _records(self, pages: Pages[T]) -> Iterator[T]:
        while (call := pages.next()) is not None:
            yield from pages.received(self._answer(call))

    def _pieces(self, call: Call[httpx.Response]) -> Iterator[bytes]:
        for seconds in call.waits():
            time.sleep(seconds)
            call.outcome = self._attempt(call.request, stream=True)
        response = call.result()
        try:
            yield from response.iter_bytes()
        except httpx.RequestError as error:
            raise transport_error(call.request, error) from error
        finally:
            response.close()


class AsyncClient(_Connection[httpx.AsyncClient, httpx.AsyncBaseTransport]):
    """``Client`` for asyncio: the same calls as coroutines and asynchronous iterators. Use it in an ``async with`` statement."""

    _open = httpx.AsyncClient

    create_customer = _awaitable(Calls.create_customer)
    get_customer = _awaitable(Calls.get_customer)
    get_customer_by_external_id = _awaitable(Calls.get_customer_by_external_id)
    refresh_customer = _awaitable(Calls.refresh_customer)
    get_or_create_customer = _awaitable(Calls.get_or_create_customer)
    update_customer = _awaitable(Calls.update_customer)
    replace_customer = _awaitable(Calls.replace_customer)
    delete_customer = _awaitable(Calls.delete_customer)
    export_customer = _async_streaming(Calls.export_customer)
    list_customers = _awaitable(Calls.list_customers)
    customers = _async_iterating(Calls.customers)
    count_customers = _awaitable(Calls.count_customers)

    create_plan = _awaitable(Calls.create_plan)
    get_plan = _awaitable(Calls.get_plan)
    list_plans = _awaitable(Calls.list_plans)
    plans = _async_iterating(Calls.plans)
    count_plans = _awaitable(Calls.count_plans)

    create_subscription = _awaitable(Calls.create_subscription)
    get_subscription = _awaitable(Calls.get_subscription)
    list_subscriptions = _awaitable(Calls.list_subscriptions)
    subscriptions = _async_iterating(Calls.subscriptions)
    count_subscriptions = _awaitable(Calls.count_subscriptions)
    cancel_subscription = _awaitable(Calls.cancel_subscription)

    list_events = _awaitable(Calls.list_events)
    events = _async_iterating(Calls.events)
    count_events = _awaitable(Calls.count_events)

    get_clock = _awaitable(Calls.get_clock)
    freeze_clock = _awaitable(Calls.freeze_clock)
    resume_clock = _awaitable(Calls.resume_clock)
    start_clock_move = _awaitable(Calls.start_clock_move)
    get_clock_move = _awaitable(Calls.get_clock_move)

    async def advance_clock(self, step: str) -> ClockMove:
        """Move the sandbox clock by a step such as ``31d``. Everything that becomes due on the way is done on return.

        Raises ``ClockMoveError`` if the move ended early.
        """
        return await self.wait_for_clock(await self.start_clock_move(step=step))

    async def set_clock(self, to: datetime | str) -> ClockMove:
        """Move the sandbox clock to a time, as ``advance_clock`` does. An earlier time only sets the clock."""
        return await self.wait_for_clock(await self.start_clock_move(to=to))

    async def wait_for_clock(self, move: ClockMove) -> ClockMove:
        """Return when a move has ended. Raises ``ClockMoveError`` if it ended early."""
        while (done := completed(move)) is None:
            await asyncio.sleep(POLL_SECONDS)
            move = await self.get_clock_move(move.id)
        return done

    async def wait_until_ready(self, timeout_seconds: float = 30.0) -> None:
        """Return when the server and its database answer. Raises the last error after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return await self._answer(self._calls.ready())
            except (TransportError, UnavailableError):
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def _answer(self, call: Call[T]) -> T:
        for seconds in call.waits():
            await asyncio.sleep(seconds)
            call.outcome = await self._attempt(call.request)
        return call.result()

    async def _attempt(self, request: httpx.Request, *, stream: bool = False) -> Outcome:
        """One attempt. With ``stream`` the body of a success is not read."""
        try:
            response = await self._http.send(request, stream=stream)
            if not response.is_success:
                await response.aread()
        except httpx.RequestError as error:
            return error
        return response

    async def _records(self, pages: Pages[T]) -> AsyncIterator[T]:
        while (call := pages.next()) is not None:
            for record in pages.received(await self._answer(call)):
                yield record

    async def _pieces(self, call: Call[httpx.Response]) -> AsyncIterator[bytes]:
        for seconds in call.waits():
            await asyncio.sleep(seconds)
            call.outcome = await self._attempt(call.request, stream=True)
        response = call.result()
        try:
            async for piece in response.aiter_bytes():
                yield piece
        except httpx.RequestError as error:
            raise transport_error(call.request, error) from error
        finally:
            await response.aclose()
