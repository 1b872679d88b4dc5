"""The file formats of customers, chosen by name."""

from __future__ import annotations

from typing import BinaryIO, Literal

from ecomcharge.customers.bulk.csv_file import CsvFile, csv_header, csv_line
from ecomcharge.customers.bulk.files import CustomerFile
from ecomcharge.customers.bulk.json_lines import JsonLines, json_line
from ecomcharge.customers.model import Customer

Format = Literal["jsonl", "csv"]


def open_customers(stream: BinaryIO, format: Format) -> CustomerFile:
    """The records of a stream. Raises ``ConfigurationError`` if the header of a CSV file is not usable."""
    return JsonLines(stream) if format == "jsonl" else CsvFile(stream)


def header_of(format: Format) -> bytes:
    return csv_header() if format == "csv" else b""


def line_of(customer: Customer, format: Format) -> bytes:
    return json_line(customer) if format == "jsonl" else csv_line(customer)
