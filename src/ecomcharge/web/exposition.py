"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ecomcharge.web.metrics import BUCKETS, OUTCOMES, Backlog, Counts

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_LATEST


def exposition_of(processes: Sequence[Counts], backlog: Backlog | None) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Scrape(processes, backlog))
    return prometheus_client.generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, processes: Sequence[Counts], backlog: Backlog | None) -> None:
        self._processes = processes
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        requests = HistogramMetricFamily(
            "ecomcharge_request_duration_seconds",
            "Requests by route, method and status, and how long they took",
            labels=["route", "method", "status"],
        )
        for labels in sorted({labels for process in self._processes for labels in process.requests}):
            histograms = [process.requests[labels] for process in self._processes if labels in process.requests]
            *counts, seconds = (sum(column) for column in zip(*histograms, strict=True))
            bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
            requests.add_metric(labels.split(" "), list(zip(bounds, accumulate(counts), strict=True)), seconds)
        yield requests
        work = CounterMetricFamily(
            "ecomcharge_database_work",
            "Units of work, the commits that they shared, point reads, and the statements that those shared",
            labels=["kind"],
        )
        for kind in sorted({kind for process in self._processes for kind in process.work}):
            work.add_metric([kind], sum(process.work.get(kind, 0) for process in self._processes))
        yield work
        charges = CounterMetricFamily(
            "ecomcharge_charges",
            "Outcomes of charges as they were recorded; one that was unknown or incomplete counts again with its last outcome",
            labels=["outcome", "kind"],
        )
        # All of them from the start, because Prometheus computes no increase for a series that starts at 1.
        known = {f"{outcome} {kind}" for outcome in OUTCOMES for kind in ("first", "renewal")}
        for labels in sorted(known.union(*(process.charges for process in self._processes))):
            charges.add_metric(labels.split(" "), sum(process.charges.get(labels, 0) for process in self._processes))
        yield charges
        if self._backlog is not None:
            yield from _gauges(self._backlog)


def _gauges(backlog: Backlog) -> Iterator[Metric]:
    yield GaugeMetricFamily("ecomcharge_renewals_due", "Subscriptions with something due; at most 10000", backlog.renewals_due)
    yield GaugeMetricFamily(
        "ecomcharge_renewals_lag_seconds", "Since when the longest waiting subscription is due", backlog.renewals_lag_seconds
    )
    count = GaugeMetricFamily(
        "ecomcharge_payments_unsettled", "Payments without a final outcome; at most 10000", labels=["status"]
    )
    age = GaugeMetricFamily("ecomcharge_payments_unsettled_age_seconds", "Age of the oldest of them", labels=["status"])
    for status, payments in backlog.payments.items():
        count.add_metric([status], payments.count)
        age.add_metric([status], payments.age_seconds)
    yield count
    yield age
    yield GaugeMetricFamily("ecomcharge_webhooks_pending", "Webhooks to be delivered; at most 10000", backlog.webhooks_pending)
    yield GaugeMetricFamily(
        "ecomcharge_webhooks_lag_seconds", "Since when the longest waiting webhook could be sent", backlog.webhooks_lag_seconds
    )
    yield GaugeMetricFamily(
        "ecomcharge_webhooks_oldest_seconds", "Age of the oldest webhook that could be sent now", backlog.webhooks_oldest_seconds
    )
    yield GaugeMetricFamily("ecomcharge_webhooks_failed", "Webhooks that were given up; at most 10000", backlog.webhooks_failed)
