"""The file formats of customers, chosen by name."""

from __future__ import annotations

from typing import BinaryIO, Literal

from ecomcharge.base.errors import ConfigurationError
from ecomcharge.customers.bulk.csv_file import CsvFile, csv_header, csv_line
from ecomcharge.customers.bulk.files import CustomerFile
from ecomcharge.customers.bulk.json_lines import JsonArray, JsonLines, is_array, json_line
from ecomcharge.customers.bulk.options import AS_IT_IS, ReadingOptions
from ecomcharge.customers.bulk.text_stream import TextStream, open_text
from ecomcharge.customers.model import Customer

Format = Literal["jsonl", "csv"]


def open_customers(
    stream: BinaryIO,
    format: Format | None,
    options: ReadingOptions = AS_IT_IS,
    allow_missing: frozenset[str] = frozenset(),
) -> CustomerFile:
    """The records of a stream; without a ``format`` its first character decides.

    Raises ``ConfigurationError`` if the file is not text, or the header of a CSV file is not usable.
    """
    text = open_text(stream, options.encoding)
    if (format or _format_of(text)) == "csv":
        return CsvFile(text, options, allow_missing)
    if options.delimiter is not None:
        raise ConfigurationError("--delimiter is for CSV files: give --format csv")
    return JsonArray(text, options) if is_array(text) else JsonLines(text, options)


def _format_of(text: TextStream) -> Format:
    start = text.stream.peek(1).lstrip()[:1]
    return "jsonl" if start in (b"", b"{", b"[") else "csv"


def header_of(format: Format) -> bytes:
    return csv_header() if format == "csv" else b""


def line_of(customer: Customer, format: Format, *, raw: bool = False) -> bytes:
    """``raw``: a CSV file for programs, whose cells a spreadsheet may take for formulas."""
    return json_line(customer) if format == "jsonl" else csv_line(customer, raw=raw)
