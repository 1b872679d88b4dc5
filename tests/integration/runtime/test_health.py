"""Readiness of a database."""

from __future__ import annotations

from pathlib import Path

import httpx

from support.process import ServerProcess
from support.shops import ENVIRONMENT


def test_a_deleted_database_is_not_ready(tmp_path: Path) -> None:
    with ServerProcess(f"sqlite:///{tmp_path}/x.db", tmp_path, environment=ENVIRONMENT) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        (tmp_path / "x.db").unlink()
        assert httpx.get(f"{server.url}/readyz").status_code == 503
