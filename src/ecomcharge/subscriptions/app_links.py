"""Links to apps, such as ``myapp://paid``, to which a buyer may go back.

A scheme is refused if a browser or an operating system gives it a meaning of its own: the browser would run the link as a
script of the payment page, show a file or another page under its address, or start a program with arguments from the link.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_REFUSED: Final = (
    *("about", "android-app", "blob", "content", "data", "file", "filesystem", "ftp", "ftps", "http", "https", "intent"),
    *("itms-services", "jar", "javascript", "ldap", "mailto", "resource", "sftp", "shell", "sms", "smb", "ssh", "tel", "telnet"),
    *("vbscript", "view-source", "ws", "wss"),
)
_REFUSED_BEGINNINGS: Final = ("chrome", "devtools", "edge", "moz-", "ms-", "search")  # of browsers and of Windows


def _in_any_case(text: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in text)


# A regular expression for Python and for ECMA 262, which has no flag for any case in JSON Schema.
SCHEME: Final = (
    f"(?!(?:{'|'.join(map(_in_any_case, _REFUSED))}):|{'|'.join(map(_in_any_case, _REFUSED_BEGINNINGS))})[A-Za-z][A-Za-z0-9+.-]*"
)
_APP_LINK: Final = re.compile(rf"{SCHEME}://[^/?#]")


def is_app_link(text: str) -> bool:
    """Whether a text without control characters is a link to an app: ``scheme://`` and a host."""
    try:
        parts = urlsplit(text)
        return (
            bool(_APP_LINK.match(text) and parts.hostname) and (parts.port is None or parts.port > 0) and text.split() == [text]
        )
    except ValueError:
        return False
