"""Files that root creates for a service get the owner of the service's files."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd


def keep_owner(descriptor: int, database_file: str) -> None:
    """Give a new file the owner of the database file, or of its folder while that does not exist.

    Only root can, and only root needs to: a command that root ran once must not leave files that the service cannot open.
    """
    if os.geteuid() == 0:
        owner = _owner_of(database_file)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_folder(path: str) -> None:
    """Create a folder and those above it. Root gives each the owner of the folder that it is in. Raises ``OSError``."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        if os.geteuid() == 0:
            owner = os.stat(parent)
            os.chown(path, owner.st_uid, owner.st_gid)


def explain(error: Exception, file: str | None = None) -> str:
    """The text of an error; of a missing permission, with the owner of the file and what to do.

    SQLite does not report the reason: ``file`` is the one that could not be opened.
    """
    if file is not None and not isinstance(error, OSError) and _is_closed_to_us(file):
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), file)
    if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM) or not error.filename:
        return str(error)
    text = f"{error.filename}: {error.strerror}"
    with contextlib.suppress(OSError):
        owner = _owner_of(str(error.filename)).st_uid
        if owner != os.geteuid():
            return f"{text}; it belongs to {_name(owner)}, and this process runs as {_name(os.geteuid())}: change its owner"
    return text


def _is_closed_to_us(file: str) -> bool:
    return os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK)


def _owner_of(file: str) -> os.stat_result:
    try:
        return os.stat(file)
    except FileNotFoundError:
        return os.stat(os.path.dirname(file) or ".")


def _name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return f"user {user_id}"
