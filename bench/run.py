"""``make bench``: start every system, check its responses, measure it in interleaved rounds, write RESULTS.md.

Machines are noisy and shared, so a single figure is not comparable: every ratio is the median, over all rounds, of the
ratio of two figures of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import bulk
import growth
import msgspec
import renewals
import search
import start
import webhooks
from systems import (
    CLIENT_CORE,
    HERE,
    SEEDED_CUSTOMERS,
    SERVER_CORE,
    Ecomcharge,
    FastApi,
    Floor,
    Localstripe,
    System,
    all_systems,
    on_core,
)

from support.postgres import PostgresServer

CONNECTIONS = 64
LIST_ALL_CONNECTIONS = 4  # each response is megabytes: with 64 connections none would be complete within a round
WARM_UP = 1  # seconds before each run of wrk, not counted: requests of the previous run may still be running
PGBENCH_ROWS = 10_000
LOG_MEBIBYTES = 4096  # of PostgreSQL's write-ahead log; two seconds of creates write 20 to 40
PACKAGES = ("ecomcharge", "granian", "uvloop", "apsw", "asyncpg", "msgspec", "fastapi", "sqlalchemy", "uvicorn", "localstripe")

# A subscription that waits for its buyer. It is a SELECT, so that it can produce many rows.
SUBSCRIPTION_ROW = (
    "INSERT INTO subscriptions (shop_id, id, version, sequence, state, plan_id, tracking_id, created_at, period,"
    " paid_billing_cycles, number_failed_payment_attempts, gateway, card, additional_data, options, last_transaction,"
    " return_url, checkout_token, due_at, leased_until)"
    " SELECT 1, {id}, 0, 0, 'redirecting', 'pln_0000000000000001', 'order-42', 0, 0, 0, 0, 'sandbox', '{{}}', '{{}}', '{{}}',"
    " '{{}}', 'https://shop.example/thanks', {token}, 1, 0"
)

# A promised ratio: the figure of one job divided by that of another, and its minimum.
PROMISES = (
    ("sqlite-1 read", "granian-rsgi constant", 0.50),
    ("sqlite-1 create", "granian-rsgi constant", 0.24),
    ("sqlite-1 list-20", "granian-rsgi constant", 0.15),
    ("postgres-1 read", "pgbench-64 read", 1.0),
    ("postgres-1 create", "pgbench-64 create", 1.0),
    ("sqlite-1 read", "fastapi read", 10.0),
    ("sqlite-1 create", "fastapi create", 20.0),
    ("sqlite-1 read", "localstripe read", 6.0),
    ("sqlite-1 create", "localstripe create", 100.0),
    ("sqlite-1 subscription", "sqlite-1 read", 0.5),
    ("sqlite-1 hosted", "sqlite-1 create", 0.5),
    ("sqlite-1 card", "sqlite-1 create", 0.15),
)


# Ratios without a promise: pgbench with prepared statements, and the references and peers of subscriptions.
COMPARISONS = (
    ("sqlite-1 subscription", "granian-rsgi-subscription constant", None),
    ("sqlite-1 hosted", "granian-rsgi-subscription constant", None),
    ("sqlite-1 card", "granian-rsgi-subscription constant", None),
    ("sqlite-1 active-20", "sqlite-1 list-20", None),
    ("sqlite-1 events-20", "sqlite-1 list-20", None),
    ("sqlite-1 subscription", "fastapi subscription", None),
    ("sqlite-1 subscription", "localstripe subscription", None),
    ("sqlite-1 hosted", "fastapi hosted", None),
    ("sqlite-1 card", "fastapi card", None),
    ("sqlite-1 active-20", "fastapi active-20", None),
    ("postgres-1 subscription", "pgbench-64 subscription", None),
    ("postgres-1 hosted", "pgbench-64 hosted", None),
    ("postgres-1 read", "pgbench-64-prepared read", None),
    ("postgres-1 create", "pgbench-64-prepared create", None),
)


class Measured(msgspec.Struct):
    """One run of one job. Engines alone and pgbench report only their rate."""

    rate: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    bad: int = 0
    broken: int = 0


Job = Callable[[float], Measured]  # takes the seconds to run


def wrk(
    system: System,
    workload: str,
    query: str = "",
    authorization: str = "",
    connections: int = CONNECTIONS,
    path: str | None = None,
    file: Path | None = None,
) -> Job:
    """``path`` and ``file`` default to those of the system's customers."""
    ids_file = file or system.file_of(workload)

    def run(seconds: float) -> Measured:
        name = system.create_workload if workload == "create" else workload
        ids = str(ids_file) if ids_file.exists() else ""
        login = "Basic MTp3cm9uZw==" if workload == "wrong-key" else authorization or system.authorization
        core = CLIENT_CORE if system.core == SERVER_CORE else None
        for duration in (WARM_UP, seconds):
            command = [
                *("wrk", "-t", "1", "-c", str(connections), "-d", f"{duration:.0f}s", "--timeout", "30s"),
                *("-s", str(HERE / "load.lua"), "-H", f"Authorization: {login}"),
                *(f"{system.url}{path or system.path}{query}", "--", name, ids),
            ]
            done = subprocess.run(on_core(core, *command), capture_output=True, text=True, check=True)
        found = re.search(r"RESULT (\{.*\})", done.stdout)
        assert found is not None, done.stdout + done.stderr
        result = json.loads(found[1])
        rate = result["requests"] / result["seconds"]
        return Measured(rate, result["p50_ms"], result["p99_ms"], result["bad"], result["broken"])

    return run


def drive(system: System, workload: str, seconds: float) -> Measured:
    return wrk(system, workload)(seconds)


def drive_file(system: System, workload: str, file: Path, connections: int, seconds: float) -> Measured:
    return wrk(system, workload, file=file, connections=connections)(seconds)


def subscription_jobs(system: System) -> dict[str, Job]:
    """``hosted`` creates a subscription that waits for its buyer; ``card`` creates one that is charged immediately."""
    path = "/subscriptions"
    return {
        f"{system.name} subscription": wrk(system, "read", path=path, file=system.subscription_ids_file),
        f"{system.name} hosted": wrk(system, "post", path=path, file=system.body_file("hosted")),
        f"{system.name} card": wrk(system, "post", path=path, file=system.body_file("card")),
        f"{system.name} active-20": wrk(system, "list", "?state=active&limit=20", path=path),
    }


def from_scratch(system: System) -> Job:
    """Measure creates on an empty store, because this system writes its whole store at every create and becomes too slow."""

    def run(seconds: float) -> Measured:
        system.stop()
        system.start()
        system.seed()
        return wrk(system, "create")(seconds)

    return run


def drive_creates(system: System, seconds: float) -> float:
    return drive(system, "create", seconds).rate


def alone(script: str, kind: str) -> Job:
    """Measure a part of a system, without a server."""

    def run(seconds: float) -> Measured:
        command = on_core(SERVER_CORE, sys.executable, str(HERE / script), kind, str(seconds))
        return Measured(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    return run


def pgbench(postgres: PostgresServer, database: str, kind: str, clients: int, folder: Path, mode: str = "simple") -> Job:
    """Measure the same two statements, one at a time, on a table of the same columns and size.

    ``simple`` is the default mode of pgbench; with ``prepared`` the server plans each statement once.
    """
    statements = {
        "read": (
            f"\\set n random(1, {PGBENCH_ROWS})\n"
            "SELECT id, first_name, last_name, address, country, city, zip, state, phone, email, ip, external_id"
            " FROM customers WHERE shop_id = 1 AND id = 'cst_' || lpad(to_hex(:n::bigint), 16, '0');\n"
        ),
        "create": (
            "\\set a random(1, 1000000000)\n\\set b random(1, 1000000000)\n"
            "INSERT INTO customers (shop_id, id, first_name, last_name, address, country, city, zip, state, phone, email, ip)"
            " VALUES (1, 'pgb_' || :a || '.' || :b, 'John', 'Doe', '1st Street', 'US', 'Denver', '92006', 'CO',"
            " '+1-555-555-5555', 'c' || :a || '.' || :b || '@example.com', '127.0.0.1')"
            " ON CONFLICT DO NOTHING RETURNING shop_id, id;\n"
        ),
        "subscription": (
            f"\\set n random(1, {PGBENCH_ROWS})\n"
            "SELECT subscriptions.*, plans.* FROM subscriptions"
            " JOIN plans ON plans.shop_id = subscriptions.shop_id AND plans.id = subscriptions.plan_id"
            " WHERE subscriptions.shop_id = 1 AND subscriptions.id = 'sbs_' || lpad(to_hex(:n::bigint), 16, '0');\n"
        ),
        "hosted": (
            "\\set a random(1, 1000000000)\n\\set b random(1, 1000000000)\n"
            "BEGIN;\nSELECT * FROM plans WHERE shop_id = 1 AND id = 'pln_0000000000000001';\n"
            "SELECT 1 FROM shops WHERE shop_id = 1 AND closed_at IS NULL FOR SHARE;\n"
            + SUBSCRIPTION_ROW.format(id="'pgb_' || :a || '.' || :b", token="'token' || :a || '.' || :b")
            + ";\nCOMMIT;\n"
        ),
    }
    script = folder / f"pgbench-{kind}.sql"
    script.write_text(statements[kind])

    def run(seconds: float) -> Measured:
        options = ("-n", "-M", mode, "-f", str(script), "-c", str(clients), "-j", "1", "-T", f"{seconds:.0f}")
        found = re.search(r"tps = ([\d.]+)", postgres.client("pgbench", database, *options))
        assert found is not None
        return Measured(float(found[1]))

    return run


def fill_wal_segments(postgres: PostgresServer) -> None:
    """Create the WAL segments of a new PostgreSQL server before the measurement, so that it recycles them.

    A new server fills each segment of 16 MiB with zeros first, and all commits wait for the disk during this time: 30 ms on
    one machine. The 99th percentile of creates was then eight times their median, and that of pgbench was higher still.
    """
    statements = (
        f"ALTER SYSTEM SET max_wal_size = '{2 * LOG_MEBIBYTES}MB'",
        f"ALTER SYSTEM SET min_wal_size = '{LOG_MEBIBYTES}MB'",
        "SELECT pg_reload_conf()",
        *["SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()"] * (LOG_MEBIBYTES // 16),
        "CHECKPOINT",
    )
    postgres.client("psql", "postgres", "-q", *(option for statement in statements for option in ("-c", statement)))


def prepare_pgbench(postgres: PostgresServer) -> str:
    """Create a database of our schema with one shop and ``PGBENCH_ROWS`` customers. Returns its name."""
    url = postgres.create_database("alone")
    key = {"ECOMCHARGE_MASTER_KEY": "A" * 43 + "="}
    command = [sys.executable, "-m", "ecomcharge", "shops", "create", "--name", "x", "--shop-id", "1", "--database", url]
    subprocess.run(command, env=os.environ | key, check=True, capture_output=True)
    fill = (
        "INSERT INTO customers (shop_id, id, first_name, last_name, address, country, city, zip, state, phone, email, ip)"
        " SELECT 1, 'cst_' || lpad(to_hex(n), 16, '0'), 'John', 'Doe', '1st Street', 'US', 'Denver', '92006', 'CO',"
        f" '+1-555-555-5555', 'c' || n || '@example.com', '127.0.0.1' FROM generate_series(1, {PGBENCH_ROWS}) AS n"
    )
    plan = (
        "INSERT INTO plans (shop_id, id, title, currency, language, infinite, plan_amount, plan_interval, plan_interval_unit,"
        " visible_fields, number_payment_attempts, prevent_payments_at_night, test, created_at, updated_at)"
        " VALUES (1, 'pln_0000000000000001', 'Basic plan', 'EUR', 'en', 1, 999, 1, 'month', '[]', 3, 0, 1, 0, 0)"
    )
    id, token = "'sbs_' || lpad(to_hex(n), 16, '0')", "'seed' || n"
    subscriptions = f"{SUBSCRIPTION_ROW.format(id=id, token=token)} FROM generate_series(1, {PGBENCH_ROWS}) AS n"
    postgres.client("psql", "alone", "-q", "-c", fill, "-c", plan, "-c", subscriptions, "-c", "ANALYZE")
    return "alone"


def jobs_of(systems: Sequence[System], postgres: PostgresServer, folder: Path) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for system in systems:
        if isinstance(system, Floor):
            jobs[f"{system.name} constant"] = wrk(system, "constant")
            continue
        jobs[f"{system.name} read"] = wrk(system, "read")
        jobs[f"{system.name} create"] = from_scratch(system) if isinstance(system, Localstripe) else wrk(system, "create")
        if isinstance(system, FastApi):
            jobs |= subscription_jobs(system)
        if isinstance(system, Localstripe):
            file = system.subscription_ids_file
            jobs["localstripe subscription"] = wrk(system, "read", path="/v1/subscriptions", file=file)
        if isinstance(system, Ecomcharge):
            jobs[f"{system.name} list-20"] = wrk(system, "list", "?limit=20")
            if system.workers == 1:
                for workload in ("skewed", "mix", "invalid", "wrong-key"):
                    jobs[f"{system.name} {workload}"] = wrk(system, workload)
                jobs |= subscription_jobs(system)
                jobs[f"{system.name} events-20"] = wrk(system, "list", "?limit=20", path="/events")
                jobs[f"{system.name} list-200"] = wrk(system, "list", "?limit=200")
                jobs[f"{system.name} list-all"] = wrk(
                    system, "list", authorization=system.still_authorization, connections=LIST_ALL_CONNECTIONS
                )
    for kind in ("read", "insert", "group"):
        jobs[f"apsw-alone {kind}"] = alone("engine_alone.py", kind)
    for kind in ("validate", "find", "insert"):
        jobs[f"fastapi-part {kind}"] = alone("peers/parts.py", kind)
    database = prepare_pgbench(postgres)
    for clients in (16, 64):
        for kind in ("read", "create", "subscription", "hosted"):
            jobs[f"pgbench-{clients} {kind}"] = pgbench(postgres, database, kind, clients, folder)
            jobs[f"pgbench-{clients}-prepared {kind}"] = pgbench(postgres, database, kind, clients, folder, "prepared")
    return jobs


def measure(
    rounds: int, seconds: float, postgres: PostgresServer, folder: Path
) -> tuple[dict[str, list[Measured]], list[System]]:
    systems = all_systems(folder, postgres)
    for system in systems:
        system.start()
    try:
        for system in systems:
            system.check()
            system.seed()
        jobs = jobs_of(systems, postgres, folder)
        results: dict[str, list[Measured]] = {name: [] for name in jobs}
        for number in range(rounds):
            for name, job in jobs.items():
                results[name].append(job(seconds))
                if not results[name][-1].rate:
                    raise RuntimeError(f"{name} answered nothing in {seconds:.0f} seconds")
                print(f"round {number + 1}  {name:24} {results[name][-1].rate:10.0f}/s", flush=True)
        for system in systems:
            system.memory = system.memory_mebibytes()
        return results, systems
    finally:
        for system in systems:
            system.stop()


def report(results: dict[str, list[Measured]], systems: Sequence[System], rounds: int, seconds: float) -> str:
    lines = [
        "# Results",
        "",
        f"Written by `make bench`: {rounds} interleaved rounds of {seconds:.0f} seconds, each after {WARM_UP} s of warm-up,"
        f" {CONNECTIONS} connections, on"
        f" {os.cpu_count()} cores ({platform.machine()}, Python {platform.python_version()})."
        " The server has one core and wrk the other; with PostgreSQL or two workers, all processes share both cores.",
        "Rates of different runs cannot be compared; ratios can. [docs/performance.md](../docs/performance.md) describes the"
        " bottlenecks and the changes that were measured.",
        "",
        "Versions: " + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES) + ".",
        "",
        "## Ratios",
        "",
        "The rate of the first job divided by the rate of the second one in the same round: median, minimum and maximum over all"
        " rounds.",
        "",
        "| job | divided by | median | spread | target | |",
        "|---|---|---|---|---|---|",
    ]
    for this, that, least in (*PROMISES, *COMPARISONS):
        ratios = [one.rate / other.rate for one, other in zip(results[this], results[that], strict=True)]
        median = statistics.median(ratios)
        verdict = "" if least is None else "reached" if median >= least else "**not reached**"
        lines.append(f"| {this} | {that} | {median:.2f} | {min(ratios):.2f} to {max(ratios):.2f} | {least or ''} | {verdict} |")
    lines += [
        "",
        "## Rates",
        "",
        f"`list-all` returns {SEEDED_CUSTOMERS:,} customers in one response, over {LIST_ALL_CONNECTIONS} connections; `list-20`"
        " and `list-200` read the shop to which the creates add customers.",
        "",
        "| job | per second, median | spread | p50 ms | p99 ms | p99 / p50 | refused |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        rates = [run.rate for run in runs]
        p50, p99 = statistics.median(run.p50_ms for run in runs), statistics.median(run.p99_ms for run in runs)
        times = f"{p50:.1f} | {p99:.1f} | {p99 / p50:.1f}" if p50 else " | | "
        bad = sum(run.bad + run.broken for run in runs)
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {times} | {bad or ''} |"
        )
    lines += [
        "",
        "## Memory",
        "",
        "Resident memory of the server and its workers after the last round.",
        "",
        "| system | MiB |",
        "|---|---|",
    ]
    lines += [f"| {system.name} | {system.memory:.0f} |" for system in systems]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--bulk-rows", type=int, default=1_000_000)
    parser.add_argument("--bulk-rounds", type=int, default=3)
    parser.add_argument("--growth-customers", type=int, default=growth.SIZES[-1], help="in the largest store")
    parser.add_argument("--growth-rounds", type=int, default=5)
    parser.add_argument("--renewal-rounds", type=int, default=3)
    parser.add_argument("--webhook-rounds", type=int, default=3)
    parser.add_argument("--search-customers", type=int, default=search.CUSTOMERS)
    parser.add_argument("--search-rounds", type=int, default=3)
    parser.add_argument("--start-rounds", type=int, default=7)
    options = parser.parse_args()
    with PostgresServer() as postgres, tempfile.TemporaryDirectory(prefix="ecomcharge-bench-") as folder:
        fill_wal_segments(postgres)
        results, systems = measure(options.rounds, options.seconds, postgres, Path(folder))
        figures = bulk.run(options.bulk_rows, options.bulk_rounds, Path(folder), postgres)
        sizes = [size for size in growth.SIZES if size < options.growth_customers] + [options.growth_customers]
        stores = growth.run(options.growth_rounds, options.seconds, Path(folder), drive, sizes)
        renewed = renewals.run(options.renewal_rounds, options.seconds, Path(folder), drive_creates)
        sent = webhooks.run(options.webhook_rounds, options.seconds, Path(folder))
        shops = search.run(options.search_rounds, options.seconds, Path(folder), postgres, drive_file, options.search_customers)
        started = start.run(options.start_rounds, Path(folder))
    text = report(results, systems, options.rounds, options.seconds)
    text += "\n" + bulk.report(figures, options.bulk_rows, options.bulk_rounds)
    text += "\n" + growth.report(stores, options.growth_rounds, options.seconds)
    text += "\n" + renewals.report(renewed, options.seconds)
    text += "\n" + webhooks.report(sent, options.seconds)
    text += "\n" + search.report(shops, options.search_rounds, options.seconds, options.search_customers)
    text += "\n" + start.report(started)
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
