"""The commands ``ecomcharge customers import`` and ``ecomcharge customers export``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
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
from ecomcharge.cli.database_options import WhichDatabase, with_database
from ecomcharge.customers.bulk import transfer
from ecomcharge.customers.bulk.files import CustomerFile, Format, open_customers
from ecomcharge.customers.bulk.transfer import Block, DuplicateCustomer, Import, ImportSummary, OnDuplicate
from ecomcharge.customers.bulk.validation_pool import Refusal, collect_rarely
from ecomcharge.shops import store as shops
from ecomcharge.storage.database import Database
from ecomcharge.storage.opening import refuse_file_of_database, sqlite_path

STANDARD: Final = "-"
PAGE_SIZE: Final = 1_000
SOME_REFUSED: Final = 3  # exit code; 2 is a mistake in the command

customers = cyclopts.App(name="customers")


@customers.command(name="import")
def import_customers(
    file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    where: WhichDatabase = WhichDatabase(),
    *,
    shop_id: int,
    format: Format | None = None,
    on_duplicate: OnDuplicate = "skip",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    report: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    from_shop_id: int | None = None,
    from_secret_key: Annotated[str | None, Parameter(env_var="ECOMCHARGE_FROM_SECRET_KEY")] = None,
) -> None:
    """Import customers out of a file, or out of another server of this API.

    Lines are checked as the API checks a request; a line with an id of ours may lack any field. An import that was
    stopped goes on where it was when it is run again, and the same file adds nothing twice. Exit code: 0 when every
    line was taken, 3 when some were refused, 1 when it could not go on.

    Parameters
    ----------
    file
        The file, or - for standard input.
    shop_id
        The shop that gets them.
    format
        ``jsonl`` (an object on each line) or ``csv`` (a header, then a customer on each line). Told by the file's
        name unless given; jsonl where that does not tell.
    on_duplicate
        What to do with a customer whose id the shop has, or who comes without an id and whose external_id the shop
        has: ``skip`` the line, ``update`` all fields of the customer, or ``fail``.
    dry_run
        Check everything and change nothing.
    report
        Where to write why lines were refused, as JSON lines; beside the file unless given.
    from_
        Base URL of a server whose shop's customers are copied, ids and all.
    from_shop_id
        The shop there; the same id unless given.
    from_secret_key
        Its secret key. Better given as an environment variable.
    """
    if (file is None) == (from_ is None):
        raise ConfigurationError("import wants a FILE (or - for standard input), or --from URL")
    for path in (file, report):
        _refuse_file_of_database(path, where)

    async def work(database: Database) -> ImportSummary:
        await _must_be_open(database, shop_id)
        now = SystemClock().now()
        plan = Import(database, IdGenerator(CUSTOMER_PREFIX), now, shop_id, on_duplicate, dry_run)
        if from_ is not None:
            if from_secret_key is None:
                raise ConfigurationError("--from wants the secret key of the shop there: set ECOMCHARGE_FROM_SECRET_KEY")
            return await _import_from_server(plan, from_, from_shop_id or shop_id, from_secret_key, report or "customers.refused")
        assert file is not None
        return await _import_from_file(plan, file, format or format_of(file), report or f"{_name(file)}.refused")

    account = with_database(where, work)
    _print_account(account, dry_run)
    if account.refused:
        sys.exit(SOME_REFUSED)


@customers.command(name="export")
def export_customers(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = STANDARD,
    where: WhichDatabase = WhichDatabase(),
    *,
    shop_id: int,
    format: Format | None = None,
) -> None:
    """Write the customers of a shop in order of creation. What is written can be imported as it is.

    Parameters
    ----------
    file
        The file, which appears when it is whole, or - for standard output.
    shop_id
        The shop.
    format
        ``jsonl`` or ``csv``. Told by the file's name unless given.
    """

    _refuse_file_of_database(file, where)

    async def work(database: Database) -> None:
        await _must_exist(database, shop_id)
        with _output(file) as output:
            async for chunk in transfer.export_customers(database, shop_id, format or format_of(file)):
                output.write(chunk)

    with_database(where, work)


def _refuse_file_of_database(path: str | None, where: WhichDatabase) -> None:
    if path not in (None, STANDARD):
        assert path is not None
        refuse_file_of_database(path, sqlite_path(where.database))


def format_of(file: str) -> Format:
    return "csv" if file.lower().endswith(".csv") else "jsonl"


async def _must_exist(database: Database, shop_id: int) -> None:
    if all(shop.shop_id != shop_id for shop in await shops.all_shops(database)):
        raise ConfigurationError(f"there is no shop {shop_id}; see ecomcharge shops list")


async def _must_be_open(database: Database, shop_id: int) -> None:
    await _must_exist(database, shop_id)
    if any(shop.shop_id == shop_id and shop.closed_at is not None for shop in await shops.all_shops(database)):
        raise ConfigurationError(f"shop {shop_id} is closed")


async def _import_from_file(plan: Import, file: str, format: Format, report: str) -> ImportSummary:
    with _input(file) as stream:
        source = open_customers(stream, format)
        blocks = transfer.blocks_of_file(plan.database, plan.shop_id, source, plan.id_generator, plan.now)
        return await _run(plan, blocks, report, _size_of(stream), source)


async def _import_from_server(plan: Import, url: str, shop_id: int, secret_key: str, report: str) -> ImportSummary:
    from ecomcharge.client import (  # imported here: an import from a file needs no HTTP client
        ApiError,
        AsyncClient,
        TransportError,
    )

    try:
        async with AsyncClient(url, shop_id, secret_key, retries=5) as client:
            customers = client.customers(page_size=PAGE_SIZE)
            return await _run(plan, transfer.blocks_of_customers(plan.shop_id, customers, plan.id_generator, plan.now), report)
    except (ApiError, TransportError) as error:
        raise ConfigurationError(f"cannot go on reading from {url}: {error}") from error


async def _run(
    plan: Import, blocks: AsyncIterator[Block], report: str, size: int | None = None, file: CustomerFile | None = None
) -> ImportSummary:
    sys.setswitchinterval(0.0005)  # seconds; threads that carry blocks to and fro should not wait for a whole block
    collect_rarely()
    with _Report(report) as refused, _progress(size) as show:

        def told(total: ImportSummary, refusals: Sequence[Refusal]) -> None:
            refused.write(refusals)
            show(total, file.bytes_read if file else 0)

        try:
            return await plan.run(blocks, told)
        except DuplicateCustomer as duplicate:
            raise ConfigurationError(
                f"line {duplicate.line} holds a customer whom the shop has; of those before it only whole blocks of 2,000 are in"
            ) from duplicate


class _Report:
    """Why lines were refused. The file comes into being with the first of them."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            print(f"refused lines are explained in {self._path}", file=sys.stderr)

    def write(self, refusals: Sequence[Refusal]) -> None:
        """Raises ``ConfigurationError`` when the file cannot be written."""
        try:
            if refusals and self._file is None:
                self._file = Path(self._path).open("wb")  # noqa: SIM115 - closed at the end of the with
            for refusal in refusals:
                assert self._file is not None
                self._file.write(msgspec.json.encode(refusal) + b"\n")
        except OSError as error:
            raise ConfigurationError(f"cannot write the report {self._path}: {error.strerror}") from error


@contextlib.contextmanager
def _progress(size: int | None) -> Iterator[Callable[[ImportSummary, int], None]]:
    """A bar on a terminal, and nothing elsewhere. ``size`` is in bytes."""
    if not sys.stderr.isatty():
        yield lambda account, bytes_read: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("reading", total=size)

        def show(account: ImportSummary, bytes_read: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.001
            text = f"{account.read:,} lines  {account.read / elapsed:,.0f}/s  {account.refused:,} refused"
            bar.update(task, completed=bytes_read, description=text)

        yield show


def _print_account(account: ImportSummary, dry_run: bool) -> None:
    words = "would be " if dry_run else ""
    counts = {
        f"{words}added": account.added,
        f"{words}updated": account.updated,
        "known already": account.duplicates,
        "imported before": account.already,
        "refused": account.refused,
    }
    told = [f"{count:,} {what}" for what, count in counts.items() if count]
    print(f"{account.read:,} read" + "".join(f", {each}" for each in told))


def _name(file: str) -> str:
    return "customers" if file == STANDARD else file


def _size_of(stream: BinaryIO) -> int | None:
    return os.fstat(stream.fileno()).st_size or None


def _input(file: str) -> AbstractContextManager[BinaryIO]:
    if file == STANDARD:
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb", buffering=1024 * 1024)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


@contextlib.contextmanager
def _output(file: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes the place of an older one when it is whole. It will hold personal data."""
    if file == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(file).exists() and not Path(file).is_file():  # a pipe, or a device
        with Path(file).open("wb") as output:
            yield output
        return
    draft = Path(f"{file}.part")
    try:
        with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {file}: {error.strerror or error}") from error
