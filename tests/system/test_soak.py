"""Fifteen seconds of the soak test; ``make soak`` runs longer."""

from __future__ import annotations

import contextlib
from typing import Any

from support.postgres import PostgresServer
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop
from support.soak import Shop, soak

SECONDS = 15.0


def test_fifteen_seconds_of_load_and_faults_leave_consistent_records(engine: str, tmp_path: Any, master_key: Any) -> None:
    with PostgresServer() if engine == "postgresql" else contextlib.nullcontext() as postgres:
        url = postgres.create_database("soak") if postgres else f"sqlite:///{tmp_path}/soak.db"
        shops = [Shop(made.shop_id, made.secret_key) for made in (add_shop(url, master_key) for _ in range(3))]
        options = ("--workers", "2", "--worker", "--failed-logins-per-minute", "0")
        with ServerProcess(url, tmp_path, *options, environment=ENVIRONMENT) as server:
            found, summary = soak(server, shops, postgres, SECONDS, seed=1)
            assert server.stop() == 0
    print(summary)
    assert found == [], summary
