"""Long responses, written to unlinked temporary files that the server program sends.

A file decouples reading the records from sending them: an error while reading becomes an ordinary error response, the
length is known before the first byte is sent, and a slow client costs a descriptor and disk space, but no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import BinaryIO, Final

import structlog

from ecomcharge.base.errors import Unavailable
from ecomcharge.web.messages import Headers, Response, Stream

log = structlog.get_logger()

RESERVED_BYTES: Final = 256 * 1024 * 1024  # free space that is left to the database, which may be on the same disk
RESERVED_FRACTION: Final = 20  # of a small disk, one part in so many
HIGHEST_DESCRIPTOR: Final = 2**16  # the kernel's table of a process is as long as its highest descriptor
OTHER_DESCRIPTORS: Final = 64  # of the database, the metrics, the listening socket
FEWEST_CONNECTIONS: Final = 8
WAIT_SECONDS: Final = 30.0  # for a descriptor
DESCRIPTORS_FOLDER: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


class ResponseFile:
    """A response whose body is in an unlinked temporary file. The owner must close it."""

    __slots__ = ("_when_closed", "code", "descriptor", "headers", "length", "status")

    def __init__(self, status: int, headers: Headers, descriptor: int, length: int, when_closed: Callable[[], None]) -> None:
        self.status = status
        self.headers = [*headers, ("content-length", str(length))]
        self.descriptor = descriptor
        self.length = length  # in bytes
        self.code: str | None = None
        self._when_closed = when_closed

    @property
    def path(self) -> str:
        """A path by which this process can open the file while it is not closed."""
        return f"{DESCRIPTORS_FOLDER}/{self.descriptor}"

    def close(self) -> None:
        os.close(self.descriptor)
        self._when_closed()


class ResponseFiles:
    """Writes responses to temporary files in the folder that ``TMPDIR`` names."""

    def __init__(self) -> None:
        self._folder = tempfile.gettempdir()
        # Each file gets a descriptor number that was not used for a long time: at most half of these are in use, and they
        # are used in turn. Otherwise a server program that opens a path too late could find the response to another client
        # there, instead of nothing.
        numbers = _file_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._numbers = itertools.cycle(numbers)
        self._free = asyncio.Semaphore(len(numbers) // 2)

    async def write(self, response: Response | Stream, request_id: str) -> ResponseFile:
        """Write a response to a new file. Raises ``Unavailable`` if that fails, and every error of the stream."""
        with _unavailable_on_os_error(request_id):
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        try:
            return await self._write(response, request_id)
        except BaseException:
            self._free.release()
            raise

    async def _write(self, response: Response | Stream, request_id: str) -> ResponseFile:
        with contextlib.ExitStack() as stack:
            with _unavailable_on_os_error(request_id):
                file = stack.enter_context(tempfile.TemporaryFile(buffering=0, dir=self._folder))
            async for chunk in _chunks_of(response):
                with _unavailable_on_os_error(request_id):
                    _write(file, chunk)
            with _unavailable_on_os_error(request_id):
                length = file.tell()
                file.seek(0)
                descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, next(self._numbers))
        return ResponseFile(response.status, response.headers, descriptor, length, self._free.release)


def connections_for(descriptors: int) -> int:
    """How many connections a process with so many descriptors may accept.

    Each takes one, and a second one while the server program sends a file. With more connections the server program could
    not open a file, and would answer 404.
    """
    return max(FEWEST_CONNECTIONS, (_file_descriptors(descriptors).start - OTHER_DESCRIPTORS) // 2)


def _file_descriptors(descriptors: int) -> range:
    """The numbers for the files: the highest quarter, which connections do not reach, as the kernel assigns the lowest."""
    end = min(descriptors, HIGHEST_DESCRIPTOR)
    return range(end - end // 4, end)


async def _chunks_of(response: Response | Stream) -> AsyncIterator[bytes]:
    if isinstance(response, Stream):
        async for chunk in response.chunks:
            yield chunk
    else:
        yield response.body


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Raises ``OSError``, also when too little space would be left."""
    disk = os.fstatvfs(file.fileno())
    free = (disk.f_bavail * disk.f_frsize) - len(chunk)
    if free < min(RESERVED_BYTES, disk.f_blocks * disk.f_frsize // RESERVED_FRACTION):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def _unavailable_on_os_error(request_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error(
            "no temporary file for a long response",
            request_id=request_id,
            reason=error.strerror or "too many long responses at once",
        )
        raise Unavailable from error
