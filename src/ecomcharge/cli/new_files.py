"""Files that a command writes: readable for their owner only, and never written through a link that somebody else made.

In a folder that others may write to, such as ``/tmp``, another user can create a link with the name of the file first. The
command would then overwrite the file that the link leads to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final

from ecomcharge.base.errors import ConfigurationError

_MODE: Final = 0o600
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES: Final = "/dev/"


def create(path: str) -> BinaryIO:
    """Open a new file in place of a regular file, or open a pipe or a device.

    Raises ``ConfigurationError`` for a symbolic link and another user's pipe, and ``OSError``.
    """
    if _is_special(path):
        return open(path, "ab")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.fdopen(os.open(path, _NEW, _MODE), "wb")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A file that replaces an older one at the end of the ``with``, or nothing if that raises; or a pipe or a device.

    Raises ``ConfigurationError`` for a symbolic link and another user's pipe, and ``OSError``.
    """
    if _is_special(path):
        with open(path, "ab") as output:  # /dev/stdout may be a file, to which a shell redirects several commands
            yield output
        return
    draft = f"{path}.{secrets.token_hex(4)}.part"
    try:
        with os.fdopen(os.open(draft, _NEW, _MODE), "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def _is_special(path: str) -> bool:
    """Whether it is a pipe or a device, or a link of the system in ``/dev`` such as ``/dev/stdout``, which may lead to a file.

    Such a link belongs to the system or to this user; everybody may create links in ``/dev/shm``.

    Raises ``ConfigurationError`` for other links, for folders, and for pipes of another user, who would read the data.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(found.st_mode):
        if os.path.abspath(path).startswith(_DEVICES) and found.st_uid in (0, os.geteuid()):
            return True
        raise ConfigurationError(f"{path} is a symbolic link; give the path of the file that it leads to")
    if stat.S_ISREG(found.st_mode):
        return False
    if stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{path} is a folder; give a file")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(f"{path} belongs to another user; give another file")
    return True
