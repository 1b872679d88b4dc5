"""Handles a request: route, credentials, rate limit, handler, and the response to an error.

It does not use sockets: an adapter for RSGI or ASGI calls it.
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

from ecomcharge.base.card_numbers import has_card_number
from ecomcharge.base.errors import BadParameter, ConfigurationError, EcomchargeError, Unavailable
from ecomcharge.storage.database import ReplicaFailed
from ecomcharge.web import problems, stale_reads
from ecomcharge.web.access_log import AccessLog, AccessLogEntry
from ecomcharge.web.auth import Authenticator
from ecomcharge.web.error_responses import error_response, internal_error_response
from ecomcharge.web.messages import Request, Response, Stream
from ecomcharge.web.rate_limits import TokenBucket
from ecomcharge.web.response_files import ResponseFile, ResponseFiles
from ecomcharge.web.router import Route, Router

log = structlog.get_logger()

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"))
LARGE_BODY_BYTES: Final = 256 * 1024  # a larger body is sent from a file
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}\Z")


class Dispatcher:
    """Returns the response to each request. One per process."""

    def __init__(
        self,
        routes: Sequence[Route],
        authenticator: Authenticator,
        rate: TokenBucket,
        access_log: AccessLog,
        before: Callable[[], Awaitable[None]] | None = None,
        security_headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """``before`` is called before each handler. Every response has the ``security_headers``."""
        self._security_headers = tuple(security_headers)
        self._before = before
        self._router = Router(routes)
        self._authenticator = authenticator
        self._rate = rate
        self._access_log = access_log
        self._files = ResponseFiles()
        self._request_ids = map(f"req_{secrets.token_hex(6)}{{:08x}}".format, itertools.count())

    async def respond(self, request: Request) -> Response | ResponseFile | Stream:
        """The response; a ``Stream`` only to a HEAD request, which gets no body.

        Every exception of a handler becomes a response. Raises only ``CancelledError``, when the request's own task is
        canceled.
        """
        try:
            given = request.header("x-request-id")
            request.request_id = given if given and _is_request_id(given) else next(self._request_ids)
            if not request.has_one_host():
                raise BadParameter("Host must be sent exactly once")
            route, request.argument = self._router.find(request.method, request.path)
            request.route = route.path
            if route.needs_shop:
                request.shop_id = self._authenticator.known_shop_of(request) or await self._authenticator.shop_of(request)
                self._rate.take(request.shop_id)
            if self._before is not None:
                await self._before()
            try:
                answer = await route.handler(request)
                response = await self._in_file(request, answer) if _is_long(answer) else answer
            except ReplicaFailed:  # then the handler reads the primary
                assert request.stale_read is not None
                await request.stale_read.close(has_answered=False)
                answer = await route.handler(request)
                response = await self._in_file(request, answer) if _is_long(answer) else answer
            if request.stale_read is not None and request.stale_read.reader is not None:
                response.headers.append((stale_reads.APPLIED, f"{stale_reads.STALE}={request.stale_read.seconds}"))
        except asyncio.CancelledError as error:
            if _is_being_canceled():
                with contextlib.suppress(OSError, ValueError):
                    log.warning("request canceled", request_id=request.request_id, route=request.route)
                raise
            response = self._response_to(request, error)  # the handler awaited a task or future that was canceled
        except Exception as error:
            response = self._response_to(request, error)
        finally:
            if request.stale_read is not None:
                await request.stale_read.close(has_answered=True)
        if request.answer_headers:
            response.headers.extend(request.answer_headers)
        response.headers += (*self._security_headers, ("x-request-id", request.request_id))
        return response

    async def _in_file(self, request: Request, response: Response | Stream) -> Response | ResponseFile | Stream:
        if request.method == "HEAD":
            return response
        if isinstance(response, Stream):
            return await self._files.write(response, request.request_id)
        with contextlib.suppress(Unavailable):  # without a file, it is sent from memory
            return await self._files.write(response, request.request_id)
        return response

    def _response_to(self, request: Request, error: BaseException) -> Response:
        """The response to an error. Never raises; logs the cause of every 500."""
        if not request.request_id:
            request.request_id = next(self._request_ids)
        try:
            response = error_response(error) if isinstance(error, EcomchargeError) else internal_error_response()
            if response.status == problems.STATUS and problems.wants_problem(request.header("accept")):
                assert isinstance(error, EcomchargeError)
                response = problems.problem_response(error, request.request_id)
        except Exception as fault:  # the error cannot be encoded
            error, response = fault, internal_error_response()
        if response.status == 500:
            with contextlib.suppress(OSError, ValueError):  # the log itself may have failed
                if isinstance(error, ConfigurationError):  # its message tells the operator what to do; a traceback does not help
                    log.error("request failed", request_id=request.request_id, route=request.route, reason=error.message)
                else:
                    log.error("request failed", request_id=request.request_id, route=request.route, exc_info=error)
        return response

    def record(self, request: Request, response: Response | ResponseFile | Stream, seconds: float) -> None:
        """Write a request and its response to the access log and the metrics. ``seconds`` is the time it took."""
        method = request.method if request.method in METHODS else "OTHER"
        route = request.route or "-"
        status, code = response.status, response.code
        shape = "" if request.route else self._router.shape_of(request.path)
        entry = AccessLogEntry(time.time(), request.request_id, method, route, status, code, request.shop_id, seconds, shape)
        self._access_log.add(entry)


def _is_request_id(text: str) -> bool:
    """Whether the log may contain an id that a client gave to its request."""
    return _REQUEST_ID.match(text) is not None and not has_card_number(text)


def _is_long(answer: Response | Stream) -> bool:
    return isinstance(answer, Stream) or len(answer.body) > LARGE_BODY_BYTES


def _is_being_canceled() -> bool:
    """Whether the current task itself is canceled, rather than something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
