"""Closes the connections of clients that stop reading a response."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from typing import Any

Target = Callable[..., None]


def with_stall_timeout(target: Target, seconds: int) -> Target:
    """The start function of a granian worker, changed so that a connection ends whose client takes no data for ``seconds``.

    granian itself would wait without a limit. The kernel does it: accepted connections inherit ``TCP_USER_TIMEOUT`` from the
    listening socket. Without that option (it is Linux's), ``target`` is unchanged.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return target
    return functools.partial(_listen_and_start, target, seconds * 1000)


def _listen_and_start(
    target: Target, timeout_milliseconds: int, worker_id: int, name: Any, loader: Any, sockets: Any, *arguments: Any
) -> None:
    """Build the listening socket from its specification here rather than in granian, and set the option."""
    (specification, _), shared = sockets
    listener = specification.build()
    with socket.socket(fileno=os.dup(listener.get_fd())) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_milliseconds)
    target(worker_id, name, loader, ((None, listener), shared), *arguments)
