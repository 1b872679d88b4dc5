"""Metrics of one process."""

from __future__ import annotations

from pathlib import Path

from ecomcharge.storage.database import DatabaseStats
from ecomcharge.web.access_log import AccessLogEntry
from ecomcharge.web.metrics import Metrics

READ = AccessLogEntry(0.0, "req_1", "GET", "/customers", 200, None, 1, 0.001)


def test_metrics_without_a_folder_cover_only_this_process(tmp_path: Path) -> None:
    metrics = Metrics(str(tmp_path / "gone"))
    metrics.count([READ])
    assert b'_count{method="GET",route="/customers",status="200"} 1.0' in metrics.exposition(DatabaseStats())
