"""Measure on PostgreSQL how tables and its log grow with renewals, and which share of the updates is HOT.

Counts of PostgreSQL, not times: the load of the machine changes them little. A server and its billing worker renew daily
subscriptions, each with a customer, a tracking id and webhooks. ``--sql`` runs a statement after the migrations, so that a
layout can be tried: PYTHONPATH=tests python bench/table_growth.py --sql "ALTER TABLE webhooks SET (fillfactor = 100)"
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import httpx

from ecomcharge.shops.keys import load_master_key
from ecomcharge.shops.model import Credentials
from support.builders import a_card, a_customer, a_plan
from support.postgres import PostgresServer
from support.process import ServerProcess
from support.receiver import Receiver
from support.shops import ENVIRONMENT, MASTER_KEY, add_shop

TABLES = ("subscriptions", "payments", "events", "webhooks")
RECEIVERS = 24  # a billing worker sends at most 16 webhooks at the same time to one receiver
DAY = 86_400_000
DATABASE = "growth"

OWN_COLUMNS = """
SELECT string_agg(column_name, ', ') FROM information_schema.columns
WHERE table_name = 'subscriptions' AND column_name NOT IN ('id', 'customer_id', 'tracking_id', 'notification_url')
"""


class Growth:
    """A database of one shop on ``postgres``."""

    def __init__(self, postgres: PostgresServer, shop: Credentials) -> None:
        self._postgres = postgres
        self._shop = shop

    def sql(self, *statements: str) -> str:
        return self._postgres.sql(DATABASE, *statements).strip()

    def subscribe(self, url: str, hooks: list[str], count: int) -> int:
        """Make ``count`` copies of a subscription that was created through the API. Returns when they are due."""
        with httpx.Client(base_url=url, auth=(str(self._shop.shop_id), self._shop.secret_key), timeout=60) as http:
            http.post("/sandbox/clock/freeze").raise_for_status()
            body = {"plan": a_plan(unit="day"), "customer": a_customer(), "card": a_card(), "notification_url": hooks[0]}
            created = http.post("/subscriptions", json={**body, "return_url": "https://shop.test/thanks"})
        columns = self.sql(OWN_COLUMNS)
        copy, urls = "lpad(to_hex(number), 16, '0')", ", ".join(f"'{hook}'" for hook in hooks)
        self.sql(
            f"INSERT INTO customers (shop_id, id, email) SELECT {self._shop.shop_id}, 'cst_' || {copy}, number || '@shop.test'"
            f" FROM generate_series(1, {count}) AS number",
            f"INSERT INTO subscriptions (id, customer_id, tracking_id, notification_url, {columns})"
            f" SELECT 'sbs_' || {copy}, 'cst_' || {copy}, 'order-' || number, (ARRAY[{urls}])[1 + number % {len(hooks)}],"
            f" {columns} FROM subscriptions, generate_series(1, {count}) AS number WHERE id = '{created.json()['id']}'",
            "VACUUM ANALYZE",
            "SELECT pg_stat_reset()",
            "CHECKPOINT",
        )
        return int(self.sql("SELECT min(due_at) FROM subscriptions"))

    def renew(self, now: int) -> None:
        """Set the frozen clock, and return when nothing is due."""
        self.sql(f"UPDATE sandbox_clock SET frozen_at = {now}")
        for busy in (
            f"SELECT 1 FROM subscriptions WHERE due_at <= {now} + 120000 LIMIT 1",  # a charge in progress is due a minute later
            f"SELECT 1 FROM webhooks WHERE due_at <= {now} LIMIT 1",
        ):
            while self.sql(busy):
                time.sleep(0.3)

    def report(self, table: str) -> str:
        updates, hot = map(int, self.sql(f"SELECT n_tup_upd, n_tup_hot_upd FROM {STATISTICS} '{table}'").split("|"))
        heap, indexes = (int(self.sql(f"SELECT {size}('{table}')")) for size in ("pg_relation_size", "pg_indexes_size"))
        share = f"{hot / updates:.0%}" if updates else ""
        return f"| {table} | {updates:,} | {share} | {heap / 1e6:.1f} | {indexes / 1e6:.1f} |"


STATISTICS = "pg_stat_user_tables WHERE relname ="


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscriptions", type=int, default=1500)
    parser.add_argument("--periods", type=int, default=3)
    parser.add_argument("--sql", action="append", default=[])
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer("autovacuum_naptime=5", "full_page_writes=off"))
        url = postgres.create_database(DATABASE)
        growth = Growth(postgres, add_shop(url, load_master_key(MASTER_KEY, None, database_file=None)))
        growth.sql(*options.sql, "SELECT 1")
        hooks = [stack.enter_context(Receiver()).url for _ in range(RECEIVERS)]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process = stack.enter_context(ServerProcess(url, folder, "--worker", "--sandbox", environment=ENVIRONMENT))
        due = growth.subscribe(process.url, hooks, options.subscriptions)
        begin = growth.sql("SELECT pg_current_wal_lsn()")
        for period in range(options.periods):
            growth.renew(due + period * DAY + 1000)
        log = int(growth.sql(f"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{begin}')"))
        renewals = options.subscriptions * options.periods
        print(f"{renewals:,} renewals, {log / renewals:,.0f} bytes of log for each\n")
        print("| table | updates | HOT | rows, MB | indexes, MB |\n|---|---|---|---|---|")
        print("\n".join(map(growth.report, TABLES)))


if __name__ == "__main__":
    main()
