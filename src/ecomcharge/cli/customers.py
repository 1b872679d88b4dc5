"""The commands ``ecomcharge customers``: import and export here, the others in ``cli.customer_records``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ecomcharge.base.clock import SystemClock
from ecomcharge.base.errors import ConfigurationError
from ecomcharge.base.ids import CUSTOMER_PREFIX, IdGenerator
from ecomcharge.base.validation import BLANK, INVALID
from ecomcharge.cli import new_files
from ecomcharge.cli.database_options import WhichDatabase, with_database
from ecomcharge.cli.terminal import print_text
from ecomcharge.customers.actions import merge_search_index
from ecomcharge.customers.bulk import transfer
from ecomcharge.customers.bulk.blocks import RECORDS_PER_BLOCK, Block, blocks_of_customers, blocks_of_file
from ecomcharge.customers.bulk.columns import parse_mapping
from ecomcharge.customers.bulk.files import UNUSED_MAXIMUM, CustomerFile
from ecomcharge.customers.bulk.formats import Format, open_customers
from ecomcharge.customers.bulk.options import (
    AS_IT_IS,
    ForeignIds,
    ReadingOptions,
    Rules,
    parse_allow_missing,
    parse_delimiter,
)
from ecomcharge.customers.bulk.transfer import DuplicateCustomer, Import, ImportSummary, OnDuplicate
from ecomcharge.customers.bulk.validation_pool import RejectedRecord, collect_rarely
from ecomcharge.customers.model import MAY_LACK
from ecomcharge.events.recorder import CustomerEventRecorder
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import refuse_file_of_database, sqlite_path

ERASE_HELP: Final = """Erase a customer: remove its personal data.

The records of its payments stay. Takes the settings of ``serve``."""

EXPORT_ONE_HELP: Final = """Write everything that is stored about one customer to standard output, as one JSON document.

Takes the settings of ``serve``."""

PURGE_HELP: Final = """Erase the customers without activity for a time, and print their ids.

No subscription is canceled. Activity is the creation or a change of the customer, a subscription that has not ended, and
the creation, the paid time, the end and the payments of a subscription. Takes the settings of ``serve``."""

STANDARD_STREAM: Final = "-"
PAGE_SIZE: Final = 1_000
SOME_REJECTED: Final = 3  # exit code; 2 is a usage error

_FORMATS: Final[Mapping[str, Format]] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}

customers = cyclopts.App(name="customers")
_RECORDS: Final = "ecomcharge.cli.customer_records"  # imported when it is used: it needs the whole program
customers.command(f"{_RECORDS}:erase", name="erase", help=ERASE_HELP)
customers.command(f"{_RECORDS}:export_one", name="export-one", help=EXPORT_ONE_HELP)
customers.command(f"{_RECORDS}:purge", name="purge", help=PURGE_HELP)


@customers.command(name="import")
def import_customers(
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    where: WhichDatabase = WhichDatabase(),
    *,
    shop_id: int,
    format: Format | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    map_: Annotated[list[str], Parameter(name="--map", negative="", show_default=False)] = [],  # noqa: B006 - cyclopts does not change it
    foreign_ids: ForeignIds = "refuse",
    allow_missing: Annotated[list[str], Parameter(negative="", show_default=False)] = [],  # noqa: B006
    on_duplicate: OnDuplicate = "skip",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    report: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    from_shop_id: int | None = None,
    from_secret_key: Annotated[str | None, Parameter(env_var="ECOMCHARGE_FROM_SECRET_KEY")] = None,
) -> None:
    """Import customers from a file, or from another server with this API.

    Lines are validated as the API validates a request; in a line with an id of this program no field is required. An
    interrupted import continues where it stopped when the command is run again. A second import of the same file with the
    same options adds nothing. Columns and keys without a field are ignored, and listed at the end. Exit code: 0 if
    every line was imported, 3 if some lines were refused, 1 if the import failed.

    Parameters
    ----------
    file
        The file, or - for standard input.
    shop_id
        The shop to import into.
    format
        ``jsonl`` (one object per line, or an array of objects) or ``csv`` (a header, then one customer per line). The
        default follows the extension of the file; if it is unknown, the first character of the file decides.
    delimiter
        The character between the cells of a CSV file, or its name: ``comma``, ``semicolon``, ``tab``, ``pipe``. The
        default follows the header.
    encoding
        The encoding of the file, for example ``cp1251``. The default is UTF-8, and UTF-16 if the file begins with a byte
        order mark.
    map_
        ``COLUMN=FIELD``: the field of a column (CSV) or of a key (JSON). Can be repeated. Without a field the column is
        ignored. Further fields: ``name`` (a full name) and ``address_2`` (a second line of the address). Headings of
        the exports of Stripe, Shopify and WooCommerce are known.
    foreign_ids
        For an id that is not one of this program: ``refuse`` the line, or store the id as ``external`` id.
    allow_missing
        Fields that a line may lack: ``email``, ``ip``, ``state``. Can be repeated or separated by commas.
    on_duplicate
        For a customer whose id the shop has, and for one without an id whose external_id the shop has: ``skip`` the
        line, ``update`` all fields of the customer, or ``fail``.
    dry_run
        Validate everything and change nothing.
    report
        File for the reasons why lines were refused, as JSON lines. The default is a file beside the imported one.
    from_
        Base URL of a server to copy the customers of a shop from. Their ids are kept.
    from_shop_id
        The id of the shop on that server. The default is the same id.
    from_secret_key
        The secret key of that shop. Prefer the environment variable.
    """
    if (file is None) == (from_ is None):
        raise ConfigurationError("import needs a FILE (or - for standard input), or --from URL")
    for path in (file, report):
        _refuse_file_of_database(path, where)
    rules = Rules(foreign_ids, parse_allow_missing(allow_missing))
    options = ReadingOptions(parse_delimiter(delimiter), encoding, parse_mapping(map_))
    if file is None and options != AS_IT_IS:
        raise ConfigurationError("--delimiter, --encoding and --map are for files")

    async def work(database: Database) -> _Outcome:
        await _must_be_open(database, shop_id)
        now = SystemClock().now()
        recorder = CustomerEventRecorder()
        plan = Import(database, IdGenerator(CUSTOMER_PREFIX), recorder, now, shop_id, on_duplicate, dry_run)
        if from_ is not None:
            if from_secret_key is None:
                raise ConfigurationError("--from needs the secret key of that shop: set ECOMCHARGE_FROM_SECRET_KEY")
            source = (from_, from_shop_id or shop_id, from_secret_key)
            return await _import_from_server(plan, rules, *source, report or "customers.refused")
        assert file is not None
        return await _import_from_file(plan, rules, file, format or _format_of(file), options, report or f"{_name(file)}.refused")

    outcome = with_database(where, work)
    _print_summary(outcome.summary, dry_run)
    for note in outcome.notes:
        print_text(note, sys.stderr)
    if outcome.summary.rejected:
        sys.exit(SOME_REJECTED)


@customers.command(name="export")
def export_customers(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = STANDARD_STREAM,
    where: WhichDatabase = WhichDatabase(),
    *,
    shop_id: int,
    format: Format | None = None,
    raw: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write the customers of a shop in order of creation. The import reads this output unchanged.

    In a CSV file an apostrophe stands before a text that a spreadsheet would take for a formula, such as a phone number with
    a plus. The import removes it.

    Parameters
    ----------
    file
        The file, or - for standard output. The file appears only when it is complete.
    shop_id
        The shop.
    format
        ``jsonl`` or ``csv``. The default follows the extension of the file.
    raw
        No apostrophes in a CSV file, for programs other than spreadsheets.
    """

    _refuse_file_of_database(file, where)
    wanted = format or _format_of(file) or "jsonl"

    async def work(database: Database) -> None:
        await _must_exist(database, shop_id)
        with _output(file) as output:
            async for chunk in transfer.export_customers(database, shop_id, wanted, raw=raw):
                output.write(chunk)

    with_database(where, work)


def _refuse_file_of_database(path: str | None, where: WhichDatabase) -> None:
    if path not in (None, STANDARD_STREAM):
        assert path is not None
        refuse_file_of_database(path, sqlite_path(where.database))


def _format_of(file: str) -> Format | None:
    return _FORMATS.get(Path(file).suffix.lower())


async def _must_exist(database: Database, shop_id: int) -> None:
    if all(shop.shop_id != shop_id for shop in await shops.all_shops(database)):
        raise ConfigurationError(f"there is no shop {shop_id}; see ecomcharge shops list")


async def _must_be_open(database: Database, shop_id: int) -> None:
    await _must_exist(database, shop_id)
    if any(shop.shop_id == shop_id and shop.closed_at is not None for shop in await shops.all_shops(database)):
        raise ConfigurationError(f"shop {shop_id} is closed")


@dataclass(frozen=True)
class _Outcome:
    """``notes`` are sentences about the import as a whole."""

    summary: ImportSummary
    notes: Sequence[str]


async def _import_from_file(
    plan: Import, rules: Rules, file: str, format: Format | None, options: ReadingOptions, report: str
) -> _Outcome:
    await asyncio.sleep(0)  # let the event loop run: reading may block, for example on an empty pipe
    with _input(file) as stream:
        source = open_customers(stream, format, options, rules.allow_missing)
        blocks = blocks_of_file(plan.database, plan.shop_id, source, plan.id_generator, plan.now, rules)
        return await _run(plan, blocks, report, _size_of(stream), source)


async def _import_from_server(plan: Import, rules: Rules, url: str, shop_id: int, secret_key: str, report: str) -> _Outcome:
    from ecomcharge.client import (  # imported here: an import from a file needs no HTTP client
        ApiError,
        AsyncClient,
        TransportError,
    )

    try:
        async with AsyncClient(url, shop_id, secret_key, retries=5) as client:
            customers = client.customers(page_size=PAGE_SIZE)
            return await _run(plan, blocks_of_customers(plan.shop_id, customers, plan.id_generator, plan.now, rules), report)
    except (ApiError, TransportError) as error:
        raise ConfigurationError(f"cannot read from {url}: {error}") from error


async def _run(
    plan: Import, blocks: AsyncIterator[Block], report: str, size: int | None = None, file: CustomerFile | None = None
) -> _Outcome:
    # Seconds. The threads that exchange blocks with the pool must not wait until this thread has processed a whole block.
    sys.setswitchinterval(0.0005)
    collect_rarely()
    with _Report(report) as rejections, _progress(size) as show_progress:

        def on_block(total: ImportSummary, rejected: Sequence[RejectedRecord]) -> None:
            rejections.write(rejected)
            show_progress(total, file.bytes_read if file else 0)

        try:
            summary = await plan.run(blocks, on_block)
        except DuplicateCustomer as duplicate:
            raise ConfigurationError(
                f"the shop has the customer of line {duplicate.line}; only complete blocks of {RECORDS_PER_BLOCK:,} lines"
                " before it were imported"
            ) from duplicate
    if not plan.dry_run:
        await merge_search_index(plan.database)
    return _Outcome(summary, [*(_notes_on_columns(file) if file else ()), *rejections.advice()])


def _notes_on_columns(file: CustomerFile) -> Iterator[str]:
    if file.renamed:
        yield "columns: " + ", ".join(f"{heading} as {target}" for heading, target in file.renamed.items())
    if file.unused:
        more = ", and more" if len(file.unused) == UNUSED_MAXIMUM else ""
        yield f"ignored, because no field has this name (--map COLUMN=FIELD gives one): {', '.join(file.unused)}{more}"


class _Report:
    """Writes the rejected records as JSON lines. The file is created with the first record."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._foreign_ids = 0
        self._lacking: Counter[str] = Counter()  # lines, by required field

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            print_text(f"the reasons for refused lines are in {self._path}", sys.stderr)

    def write(self, rejected: Sequence[RejectedRecord]) -> None:
        """Raises ``ConfigurationError`` if the file cannot be written."""
        try:
            if rejected and self._file is None:
                self._file = new_files.create(self._path)  # closed at the end of the with
            for record in rejected:
                assert self._file is not None
                self._count(record)
                self._file.write(msgspec.json.encode(record) + b"\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write the report {self._path}: {error.strerror}") from error

    def _count(self, record: RejectedRecord) -> None:
        self._foreign_ids += record.errors.get("id") == [INVALID]
        for name in MAY_LACK & record.errors.keys():
            self._lacking[name] += BLANK in record.errors[name]

    def advice(self) -> Iterator[str]:
        """The options with which refused lines can be imported."""
        if self._foreign_ids:
            yield f"lines with an id of another system: {self._foreign_ids:,} (--foreign-ids external stores it as external_id)"
        for name, lines in sorted(self._lacking.items()):
            if lines:
                yield f"lines without {name}: {lines:,} (--allow-missing {name} imports them)"


@contextlib.contextmanager
def _progress(size: int | None) -> Iterator[Callable[[ImportSummary, int], None]]:
    """Show a progress bar if standard error is a terminal. ``size`` is in bytes."""
    if not sys.stderr.isatty():
        yield lambda summary, bytes_read: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=size)

        def show(summary: ImportSummary, bytes_read: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.001
            text = f"{summary.read:,} lines  {summary.read / elapsed:,.0f}/s  {summary.rejected:,} refused"
            bar.update(task, completed=bytes_read, description=text)

        yield show


def _print_summary(summary: ImportSummary, dry_run: bool) -> None:
    prefix = "would be " if dry_run else ""
    counts = {
        f"{prefix}added": summary.added,
        f"{prefix}updated": summary.updated,
        "known already": summary.duplicates,
        "imported before": summary.already_imported,
        "refused": summary.rejected,
    }
    parts = [f"{count:,} {label}" for label, count in counts.items() if count]
    print(", ".join([f"{summary.read:,} read", *parts]))


def _name(file: str) -> str:
    return "customers" if file == STANDARD_STREAM else file


def _size_of(stream: BinaryIO) -> int | None:
    return os.fstat(stream.fileno()).st_size or None


def _input(file: str) -> AbstractContextManager[BinaryIO]:
    if file == STANDARD_STREAM:
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb", buffering=1024 * 1024)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


@contextlib.contextmanager
def _output(file: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that replaces an older one when it is complete.

    Only the owner may read the file, because it contains personal data.
    """
    if file == STANDARD_STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with new_files.replacing(file) as output:
            yield output
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror or error}") from error
