"""The core: a function from request to response, and the two doors in front of it.

RSGI is granian's own interface and the fast door; ASGI is for tests and for every other server. Behind them
there is no framework: find the route, know the shop, call the handler, turn an error into a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from ecomcharge.base.errors import (
    ConfigurationError,
    EcomchargeError,
)
from ecomcharge.web.access_log import AccessLog
from ecomcharge.web.auth import Authenticator
from ecomcharge.web.messages import AccessLogEntry, Request, Response, Stream, error_response, internal_error_response
from ecomcharge.web.rate_limits import TokenBucket
from ecomcharge.web.router import Route, Router

log = structlog.get_logger()


METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}\Z")


class Server:
    """From request to response. Knows routes and shops, and nothing of sockets."""

    def __init__(
        self,
        routes: Sequence[Route],
        authenticator: Authenticator,
        rate: TokenBucket,
        access_log: AccessLog,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``before`` is done before each request is handled."""
        self._before = before
        self._router = Router(routes)
        self._authenticator = authenticator
        self._rate = rate
        self._journal = access_log
        self._request_ids = map(f"req_{secrets.token_hex(6)}{{:08x}}".format, itertools.count())

    async def respond(self, request: Request) -> Response | Stream:
        """The answer to a request. Whatever a handler raises becomes an answer and, where it is our fault, a log line.

        Raises nothing but ``CancelledError``, and that only when the task of the request itself is canceled.
        """
        try:
            given = request.header("x-request-id")
            request.request_id = given if given and _REQUEST_ID.match(given) else next(self._request_ids)
            route, request.argument = self._router.find(request.method, request.path)
            request.route = route.path
            if route.needs_shop:
                request.shop_id = await self._authenticator.shop_of(request)
                self._rate.take(request.shop_id)
            if self._before is not None:
                await self._before()
            response = await route.handler(request)
        except asyncio.CancelledError as error:
            if _is_being_canceled():
                with contextlib.suppress(OSError, ValueError):
                    log.warning("request canceled", request_id=request.request_id, route=request.route)
                raise
            response = self._error_answer(request, error)  # something that it waited for was canceled
        except Exception as error:
            response = self._error_answer(request, error)
        if request.answer_headers:
            response.headers.extend(request.answer_headers)
        response.headers.append(("x-request-id", request.request_id))
        return response

    def _error_answer(self, request: Request, error: BaseException) -> Response:
        """The answer to what was raised. Never raises; the log has the cause of every 500."""
        if not request.request_id:
            request.request_id = next(self._request_ids)
        try:
            response = error_response(error) if isinstance(error, EcomchargeError) else internal_error_response()
        except Exception as fault:  # the error cannot be shown
            error, response = fault, internal_error_response()
        if response.status == 500:
            with contextlib.suppress(OSError, ValueError):  # the log may be what failed
                if isinstance(error, ConfigurationError):  # an operator can act on its sentence; a traceback adds nothing
                    log.error("request failed", request_id=request.request_id, route=request.route, reason=error.message)
                else:
                    log.error("request failed", request_id=request.request_id, route=request.route, exc_info=error)
        return response

    def answered(self, request: Request, response: Response | Stream, seconds: float) -> None:
        """To be told when an answer was handed over, or its stream ended."""
        method = request.method if request.method in METHODS else "OTHER"
        route = request.route or "-"
        note = AccessLogEntry(
            time.time(), request.request_id, method, route, response.status, response.code, request.shop_id, seconds
        )
        self._journal.note(note)


def _is_being_canceled() -> bool:
    """Whether somebody asked to cancel the current task, rather than something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
