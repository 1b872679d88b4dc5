"""The commands that import and export customers, their processes, and recovery after a kill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ecomcharge.customers.bulk import validation_pool
from ecomcharge.customers.bulk.blocks import RECORDS_PER_BLOCK
from support.bulk import DATA, OTHER_SHOP, SHOP, command, exported, imported, line, lines, stored
from support.shops import ENVIRONMENT, Shop


def test_the_import_command_reads_files_and_standard_input(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(30) + b"{}\n")
    first = command(url, "import", str(file), "--shop-id", str(SHOP))
    assert (first.returncode, first.stdout) == (3, b"31 read, 30 added, 1 refused\n")
    report = [json.loads(each) for each in (tmp_path / "customers.jsonl.refused").read_text().splitlines()]
    assert [(each["line"], sorted(each["errors"])) for each in report] == [(31, ["email", "ip"])]
    csv = command(url, "export", "--shop-id", str(SHOP), "--format", "csv")
    second = command(url, "import", "-", "--format", "csv", "--shop-id", str(OTHER_SHOP), stdin=csv.stdout)
    assert (second.returncode, second.stdout) == (0, b"30 read, 30 added\n")
    assert stored(url) == stored(url, OTHER_SHOP)


def test_the_import_command_lists_the_columns_that_it_used_and_ignored(url: str) -> None:
    shop = ("--shop-id", str(SHOP))
    done = command(url, "import", str(DATA / "shopify.csv"), *shop, "--map", "Tags=city", "--map", "First Name=")
    assert (done.returncode, done.stdout) == (0, b"2 read, 2 added\n")
    assert done.stderr.decode().splitlines() == [
        "columns: Customer ID as external_id, Last Name as last_name, Default Address Address1 as address,"
        " Default Address Address2 as a part of address, Default Address Province Code as state,"
        " Default Address Country Code as country, Default Address Zip as zip, Tags as city",
        "ignored, because no field has this name (--map COLUMN=FIELD gives one): First Name, Accepts Email Marketing,"
        " Default Address Company, Default Address City, Default Address Phone, Total Spent",
    ]
    assert [customer.city for customer in stored(url)] == ["vip, old", None]


def test_the_import_command_names_the_options_for_refused_lines(url: str, tmp_path: Path) -> None:
    file = tmp_path / "stripe.csv"
    file.write_bytes((DATA / "stripe.csv").read_bytes())
    shop = ("--shop-id", str(SHOP))
    assert command(url, "import", str(file), *shop).stderr == (
        b"ecomcharge: the first line of a CSV file must name its columns; ip not found: use --map COLUMN=ip for a column with"
        b" another name, --allow-missing ip without one\n"
    )
    refused = command(url, "import", str(file), *shop, "--map", "Status=ip")
    assert (refused.returncode, refused.stdout) == (3, b"2 read, 2 refused\n")
    assert refused.stderr.decode().splitlines()[-2:] == [
        "lines with an id of another system: 2 (--foreign-ids external stores it as external_id)",
        "lines without ip: 2 (--allow-missing ip imports them)",
    ]
    options = ("--foreign-ids", "external", "--allow-missing", "ip,state", "--allow-missing", "email")
    done = command(url, "import", str(file), *shop, *options)
    assert (done.returncode, done.stdout) == (0, b"2 read, 2 added\n")


def test_the_first_character_of_standard_input_decides_the_format(url: str) -> None:
    for content in (b"email\tip\na@shop.test\t::1\n", b' \n[{"email":"b@shop.test","ip":"::1"}]', line("c@shop.test"), b""):
        done = command(url, "import", "-", "--shop-id", str(SHOP), stdin=content)
        assert (done.returncode, done.stderr) == (0, b"")
    assert [customer.email for customer in stored(url)] == ["a@shop.test", "b@shop.test", "c@shop.test"]


def test_a_file_in_another_encoding_is_read_from_a_file_and_from_a_pipe(url: str) -> None:
    shop, file = ("--shop-id", str(SHOP)), DATA / "windows-1251.csv"
    for source, stdin in ((str(file), b""), ("-", file.read_bytes())):
        refused = command(url, "import", source, *shop, stdin=stdin)
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"it is probably cp1251: give --encoding cp1251" in refused.stderr
        done = command(url, "import", source, *shop, "--encoding", "cp1251", stdin=stdin)
        assert done.returncode == 0, done.stderr
    assert [customer.first_name for customer in stored(url)] == ["Анна", "Bob"]


def test_an_export_file_appears_complete_and_readable_by_its_owner_only(url: str, tmp_path: Path) -> None:
    imported(url, lines(3))
    file = tmp_path / "all.jsonl"
    assert command(url, "export", str(file), "--shop-id", str(SHOP)).returncode == 0
    assert file.read_bytes() == exported(url)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*.part")) == []


def test_an_export_to_a_named_pipe_keeps_the_pipe(url: str, tmp_path: Path) -> None:
    imported(url, lines(3))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert command(url, "export", str(pipe), "--shop-id", str(SHOP)).returncode == 0
        assert reader.communicate(timeout=10)[0] == exported(url)
    assert pipe.is_fifo()


def test_bulk_command_errors_are_one_sentence(url: str, tmp_path: Path) -> None:
    missing = command(url, "import", str(tmp_path / "none.jsonl"), "--shop-id", str(SHOP))
    assert (missing.returncode, missing.stderr.count(b"\n")) == (1, 1)
    assert b"No such file" in missing.stderr
    unknown_shop = command(url, "import", "-", "--shop-id", "99")
    assert (unknown_shop.returncode, unknown_shop.stderr) == (1, b"ecomcharge: there is no shop 99; see ecomcharge shops list\n")
    compressed = command(url, "import", str(DATA / "compressed.csv.gz"), "--shop-id", str(SHOP))
    assert (compressed.returncode, compressed.stderr.count(b"\n")) == (1, 1)
    assert b"the file is compressed (gzip); decompress it first" in compressed.stderr
    wrong_options = [
        ("--map", "Tags=tags"),
        ("--delimiter", "ab"),
        ("--encoding", "nonsense"),
        ("--allow-missing", "city"),
        ("--delimiter", ";", "--format", "jsonl"),
    ]
    for options in wrong_options:
        done = command(url, "import", "-", "--shop-id", str(SHOP), *options, stdin=b"email,ip\n")
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), options
        assert options[0].encode() in done.stderr
    server = command(url, "import", "--from", "http://127.0.0.1:1", "--shop-id", str(SHOP), "--encoding", "utf-8")
    assert (server.returncode, server.stderr) == (1, b"ecomcharge: --delimiter, --encoding and --map are for files\n")


def test_an_import_from_another_server_keeps_every_id(server: Shop, url: str) -> None:
    content = b"".join(line(f"c{number}@shop.test", external_id=f"x{number}") for number in range(1_234))
    imported(server.process.database, content, shop_id=server.shop_id)
    arguments = ("import", "--from", server.url, "--from-shop-id", str(server.shop_id), "--shop-id", str(SHOP))
    copied = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY=server.secret_key)
    assert copied.stdout == b"1,234 read, 1,234 added\n", copied.stderr
    assert stored(url) == stored(server.process.database, server.shop_id)
    again = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY=server.secret_key)
    assert again.stdout == b"1,234 read, 1,234 known already\n"
    wrong = command(url, *arguments, ECOMCHARGE_FROM_SECRET_KEY="wrong-key")
    assert wrong.returncode == 1
    assert b"401 Unauthorized" in wrong.stderr


def test_an_import_killed_at_any_time_and_repeated_loses_and_duplicates_nothing(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(40_000))
    words = [sys.executable, "-m", "ecomcharge", "customers", "import", str(file), "--shop-id", str(SHOP), "--database", url]
    found = []
    for seconds in (0.9, 1.3, 1.7):
        process = subprocess.Popen(words, env={**os.environ, **ENVIRONMENT}, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(len(stored(url)))
        assert found[-1] % RECORDS_PER_BLOCK == 0
    assert command(url, "import", str(file), "--shop-id", str(SHOP)).returncode == 0
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(40_000)]


@contextlib.contextmanager
def import_with_validator(url: str) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """An import that waits for more lines, and its validation process."""
    words = [sys.executable, "-m", "ecomcharge", "customers", "import", "-", "--shop-id", str(SHOP), "--database", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env={**os.environ, **ENVIRONMENT}, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(lines(validation_pool.POOL_MINIMUM_RECORDS + RECORDS_PER_BLOCK))
        process.stdin.flush()
        deadline = time.monotonic() + 30
        processes: list[psutil.Process] = []
        while not processes and time.monotonic() < deadline:
            time.sleep(0.05)
            processes = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
        yield process, *processes


def test_validation_processes_end_when_their_import_is_killed(url: str) -> None:
    with import_with_validator(url) as (process, validator):
        process.kill()
        assert psutil.wait_procs([validator], timeout=20) == ([validator], [])


def test_an_import_whose_validation_process_is_killed_fails_and_can_be_resumed(url: str) -> None:
    many = lines(40_000)
    with import_with_validator(url) as (process, validator):
        validator.kill()
        output, why = process.communicate(
            many[len(lines(validation_pool.POOL_MINIMUM_RECORDS + RECORDS_PER_BLOCK)) :], timeout=60
        )
        assert (process.returncode, output) == (1, b"")
        assert why == b"ecomcharge: a process that validates lines was killed; run the command again to continue\n"
    again = command(url, "import", "-", "--shop-id", str(SHOP), stdin=many)
    assert again.returncode == 0, again.stderr
    assert [customer.email for customer in stored(url)] == [f"c{number}@shop.test" for number in range(40_000)]


def test_two_concurrent_imports_of_one_file_add_it_once(url: str, tmp_path: Path) -> None:
    file = tmp_path / "customers.jsonl"
    file.write_bytes(lines(12_000))

    async def both() -> list[bytes]:
        words = ["-m", "ecomcharge", "customers", "import", str(file), "--shop-id", str(SHOP), "--database", url]
        started = [
            await asyncio.create_subprocess_exec(
                sys.executable, *words, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE
            )
            for _ in range(2)
        ]
        return [(await process.communicate())[0] for process in started]

    outputs = asyncio.run(both())
    assert all(b"12,000 read" in each for each in outputs), outputs
    emails = [customer.email for customer in stored(url)]
    assert len(emails) == len(set(emails)) == 12_000
