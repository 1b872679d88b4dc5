"""E-mail and IP addresses."""

from __future__ import annotations

import functools
import importlib.util
import ipaddress
import re
import socket
import sys
from types import ModuleType
from typing import Final

_COPY: Final = "ecomcharge.base.email_validator_copy"  # no file has this name
_PLAIN_EMAIL_MAXIMUM: Final = 64  # characters: no part of such an address is too long


# Two hyphens side by side in a domain may be Punycode, so the library decides. Atomic groups, not possessive quantifiers:
# Python 3.11 before 3.11.5 matches a.@b.com with a possessive group.
_ATOM: Final = r"[a-zA-Z0-9_!#$%&'*+\-/=?^`{|}~]++"


_PLAIN_EMAIL: Final = re.compile(rf"{_ATOM}(?>(?:\.{_ATOM})*)@(?>(?:[a-zA-Z0-9]++[.-])+)(?<=\.)[a-zA-Z]++\Z")


PORT_MAXIMUM: Final = 65_535
_PORT: Final = re.compile(r"[0-9]{1,5}\Z")
_BRACKETED: Final = re.compile(r"\[(?P<address>[^\[\]]*)\](?::(?P<port>[0-9]*))?\Z")


def accept_email(text: str) -> str | None:
    """RFC 5321 and 5322 without quoting and address literals, international addresses included [D].

    It is stored exactly as sent.
    """
    if is_plain_email(text):
        return text
    library = _email_validator()
    try:
        library.validate_email(
            text, strict=True, check_deliverability=False, allow_quoted_local=False, allow_domain_literal=False
        )
    except library.EmailNotValidError:
        return None
    return text


@functools.cache
def _email_validator() -> ModuleType:
    """A copy of the library ``email_validator`` in which no domain name is reserved: sandboxes write to jane@shop.test [D].

    The library has no parameter for its list of reserved names, only a global list. Other code in this process may need that
    list, so the library is loaded a second time under another name. It takes 20 ms, and few addresses need it.
    """
    found = importlib.util.find_spec("email_validator")
    assert found is not None
    assert found.origin is not None
    spec = importlib.util.spec_from_file_location(
        _COPY, found.origin, submodule_search_locations=found.submodule_search_locations
    )
    assert spec is not None
    assert spec.loader is not None
    library = sys.modules[_COPY] = importlib.util.module_from_spec(spec)  # its modules import each other by this name
    spec.loader.exec_module(library)
    library.SPECIAL_USE_DOMAIN_NAMES.clear()
    return library


def is_plain_email(text: str) -> bool:
    """Whether the regular expression accepts an address, as it does for nearly every real one.

    It is about fifty times as fast as the library, which decides the other addresses. A property in the tests shows that
    the library accepts every address that this accepts.
    """
    return len(text) <= _PLAIN_EMAIL_MAXIMUM and _PLAIN_EMAIL.match(text) is not None


def accept_ip(text: str) -> str | None:
    """IPv4 or IPv6 [S], without a zone; the canonical form is stored [D].

    Of a list, as proxies write it, it is the first address, without port and brackets [W].
    """
    return text if is_ipv4(text) else _accept_ipv6(text) or _first_of_list(text)


def _first_of_list(text: str) -> str | None:
    first, comma, _ = text.partition(",")
    if comma:
        first = first.rstrip()
    bracketed = _BRACKETED.match(first)
    if bracketed is not None:
        return _accept_ipv6(bracketed["address"]) if _is_port(bracketed["port"]) else None
    address, colon, port = first.partition(":")
    if is_ipv4(address):
        return address if not colon or _is_port(port) else None
    return _accept_ipv6(first)


def _is_port(text: str | None) -> bool:
    return text is None or (_PORT.match(text) is not None and int(text) <= PORT_MAXIMUM)


def is_ipv4(text: str) -> bool:
    """Whether it is an IPv4 address for ``inet_pton``: four decimal numbers without leading zeros, the canonical form."""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def _accept_ipv6(text: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    if address.scope_id is not None:
        return None
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)  # RFC 5952, sections 4 and 5
