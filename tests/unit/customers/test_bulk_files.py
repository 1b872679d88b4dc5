"""CSV rows are read without a database."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.base.validation import ValidationErrors
from ecomcharge.customers.bulk import validation_pool
from ecomcharge.customers.bulk.columns import COLUMNS
from ecomcharge.customers.bulk.csv_file import CsvFile, cells_of, csv_header, csv_line
from ecomcharge.customers.bulk.files import UnreadableLine
from ecomcharge.customers.bulk.formats import open_customers
from ecomcharge.customers.bulk.options import Rules
from ecomcharge.customers.bulk.text_stream import open_text
from ecomcharge.customers.model import Customer, CustomerBody, validate_partial, validate_with_id
from support.bulk import HEADING, SHOP


def test_reading_a_file_full_of_open_quotes_takes_time_in_proportion_to_its_length() -> None:
    """Each of these lines leaves a quote open, for any state of the previous line."""
    content = HEADING + b'5","x\n' * 100_000
    started = time.process_time()
    assert sum(1 for _ in open_customers(io.BytesIO(content), "csv").records()) == 100_000
    assert time.process_time() - started < 30  # seconds; it takes about one, or hours if every line is searched to the limit


def rows_of(content: bytes) -> list[list[str] | None]:
    """The cells of each row of a CSV file with known columns, or ``None`` for a row that cannot be read."""
    file = CsvFile(open_text(io.BytesIO(content)))
    rows: list[list[str] | None] = []
    for _, record in file.records():
        try:
            rows.append(cells_of(record, ",", ""))
        except UnreadableLine:
            rows.append(None)
    return rows


NOT_ALONE: Any = {"exclude_categories": ["Cs"], "exclude_characters": "\r"}  # the csv module does not quote every "\r"
CSV_TEXT = st.lists(
    st.one_of(st.sampled_from(['"', ",", "\n", "\r\n", " ", ";", "="]), st.characters(**NOT_ALONE)), max_size=12
).map("".join)


def has_text(cells: list[str]) -> bool:
    """Rows without text are blank lines."""
    return any(cell.strip(" \t\r\n\x0b\x0c") for cell in cells)


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(CSV_TEXT, min_size=len(COLUMNS), max_size=len(COLUMNS)).filter(has_text), max_size=6),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_well_formed_file_has_the_cells_that_the_csv_module_reads(rows: list[list[str]], quoting: int, end: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=end).writerows([COLUMNS, *rows])  # type: ignore[arg-type]
    assert list(csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True))[1:] == rows
    assert rows_of(text.getvalue().encode()) == rows


STRAY_QUOTES = st.sampled_from(['5"', '"5', '5" W', '"5" W', '""5', '"', '5""', '"5,6', '5","6', '"""', '"5""'])


@settings(deadline=None)
@given(rows=st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 2), STRAY_QUOTES)), max_size=12), quoted=st.booleans())
def test_valid_rows_are_read_and_others_are_refused_by_line_number(rows: list[tuple[int, str] | None], quoted: bool) -> None:
    file_lines = []
    for number, stray in enumerate(rows, 2):
        cells = [f"c{number}@shop.test", "::1", "5 West"]
        if stray is not None:
            cells[stray[0]] = stray[1]
        elif quoted:
            cells = [f'"{cell}"' for cell in cells]
        file_lines.append(",".join(cells) + "\n")
    file = CsvFile(open_text(io.BytesIO(HEADING + "".join(file_lines).encode())))
    records = list(file.records())
    checked = validation_pool.validate_block(
        SHOP, Rules(), records, file.read, IdGenerator(CUSTOMER_PREFIX).reserve(0, len(records))
    )
    assert b"".join(record for _, record in records) == "".join(file_lines).encode()  # no byte is skipped
    in_or_named = sorted([each.line for each in checked.candidates] + [each.line for each in checked.rejected])
    assert in_or_named == [number for number, _ in records]
    good = {number for number, stray in enumerate(rows, 2) if stray is None}
    assert good <= {each.line for each in checked.candidates}


CELLS = st.text(st.sampled_from("'=+-@5aя \"\t\r,"), max_size=8) | st.text(max_size=20)


@given(fields=st.fixed_dictionaries(dict.fromkeys(("first_name", "city", "phone", "external_id"), CELLS)), raw=st.booleans())
def test_an_exported_row_is_read_back_and_begins_no_formula(fields: dict[str, str], raw: bool) -> None:
    """Also texts that begin with an apostrophe themselves, in both forms of the export."""
    stored = validate_partial(CustomerBody(**fields, email="jane@shop.test"), ValidationErrors())
    customer = Customer("cst_7aee5afb954c7ef7", *msgspec.structs.astuple(stored))
    line = csv_line(customer, raw=raw)

    [(_, record)] = list((file := CsvFile(open_text(io.BytesIO(csv_header() + line)))).records())
    assert validate_with_id(file.read(record)) == (customer.id, stored)
    cells = next(csv.reader([line.decode()]))
    assert raw or not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")]


def test_a_phone_number_with_a_plus_is_marked_only_for_spreadsheets() -> None:
    customer = Customer(
        "cst_7aee5afb954c7ef7", None, None, None, None, None, None, None, "+375291234567", "jane@shop.test", "127.0.0.1"
    )
    assert b",'+375291234567," in csv_line(customer)
    assert b",+375291234567," in csv_line(customer, raw=True)
