"""Customers as JSON lines: one object per line."""

from __future__ import annotations

from typing import Final

import msgspec

from ecomcharge.base.errors import EcomchargeError
from ecomcharge.base.validation import decode_body
from ecomcharge.customers.bulk.files import NOT_UTF_8, CustomerFile, Read, UnreadableLine, check_length
from ecomcharge.customers.model import Customer, IdentifiedBody

_DECODER: Final = msgspec.json.Decoder(IdentifiedBody)


class JsonLines(CustomerFile):
    @property
    def read(self) -> Read:
        return read_json


def read_json(line: bytes) -> IdentifiedBody:
    """Raises ``UnreadableLine``."""
    check_length(line)
    try:
        if not line.isascii():
            line.decode()
        return decode_body(line, _DECODER)
    except UnicodeDecodeError as error:
        raise UnreadableLine(NOT_UTF_8) from error
    except EcomchargeError as error:
        raise UnreadableLine(error.message) from error


def json_line(customer: Customer) -> bytes:
    return msgspec.json.encode(customer) + b"\n"
