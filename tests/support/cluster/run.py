"""The load test: one server through HAProxy, one with the URL of all nodes, and failures of the leader."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ecomcharge.shops.keys import load_master_key
from support.cluster.faults import FAULTS, Fault, until
from support.cluster.nodes import Cluster
from support.process import ServerProcess
from support.shops import add_shop
from support.soak import (
    MASTER_KEY,
    Ledger,
    Listed,
    LoadedServer,
    Shop,
    Visitor,
    audited,
    doubled_customers,
    faults_of,
    lost_customers,
)

WRITES_BACK_SECONDS = 25.0  # the lease of the leader is 20
ANSWER_SECONDS = 11.0
LOAD_SECONDS = 5.0  # before the first fault, and after each one when the cluster is complete again
RECOVERY_TIMEOUT_SECONDS = 180.0
OPTIONS = ("--workers", "1", "--worker", "--failed-logins-per-minute", "0")


@dataclass
class TimedLedger(Ledger):
    """A ledger that also knows when creates were acknowledged."""

    acknowledged_at: list[float] = field(default_factory=list)

    def count(self, kind: str, status: int, seconds: float) -> None:
        super().count(kind, status, seconds)
        if status == 201 and kind in ("create", "keyed create"):
            self.acknowledged_at.append(time.monotonic())

    def longest_gap(self, start: float, end: float) -> float:
        """The longest time without an acknowledged create, in seconds."""
        times = [start, *(each for each in self.acknowledged_at if start < each < end), end]
        return max(after - before for before, after in itertools.pairwise(times))

    def by_status(self) -> Counter[int]:
        statuses: Counter[int] = Counter()
        for (_, status), count in self.statuses.items():
            statuses[status] += count
        return statuses


@dataclass(frozen=True)
class Outage:
    """A fault as the clients of one server experienced it."""

    fault: str
    server: str
    seconds_without_writes: float
    creates: int
    statuses: Mapping[int, int]

    def __str__(self) -> str:
        return (
            f"{self.fault:12} {self.server:12} writes back after {self.seconds_without_writes:5.1f} s,"
            f" {sum(self.statuses.values()):,} requests, {self.creates:,} creates acknowledged, {text_of_statuses(self.statuses)}"
        )


class ClusterRun:
    """Clients of several servers, and the faults. ``servers`` have names; their ledgers are of ``TimedLedger``."""

    def __init__(self, cluster: Cluster, servers: Mapping[str, LoadedServer], clients: int) -> None:
        self._cluster = cluster
        self._servers = servers
        self._clients = clients
        self._stopped = False
        self.wrong: list[str] = []
        self.listed: dict[str, Listed] = {}

    async def run(self, faults: Sequence[Fault]) -> list[str]:
        """Returns the problems found."""
        visits = [
            asyncio.create_task(Visitor(loaded, number).visit(lambda: self._stopped))
            for loaded in self._servers.values()
            for number in range(self._clients)
        ]
        await asyncio.sleep(LOAD_SECONDS)
        for fault in faults:
            await self._inject(fault)
        self._stopped = True
        await asyncio.gather(*visits)
        for name, loaded in self._servers.items():
            self.listed[name] = await loaded.list_everything()
            self.wrong += [
                f"{name}: {each}" for each in faults_of(loaded.ledger, self.listed[name]) + _slow_or_unanswered(loaded)
            ]
        loaded = next(iter(self._servers.values()))
        return self.wrong + await audited(loaded.server.database)

    async def _inject(self, fault: Fault) -> None:
        before = {name: _ledger(loaded).by_status() for name, loaded in self._servers.items()}
        started = time.monotonic()
        async with fault(self._cluster):
            elected = time.monotonic()
            for name, loaded in self._servers.items():
                written = functools.partial(_wrote_since, _ledger(loaded), elected)
                await until(written, RECOVERY_TIMEOUT_SECONDS, f"a create through {name} after {fault.__name__}")
        await until(self._cluster.is_healthy, RECOVERY_TIMEOUT_SECONDS, f"three healthy nodes after {fault.__name__}")
        await asyncio.sleep(LOAD_SECONDS)
        for name, loaded in self._servers.items():
            self._record(fault.__name__, name, _ledger(loaded), started, before[name])

    def _record(self, fault: str, name: str, ledger: TimedLedger, started: float, before: Counter[int]) -> None:
        now = time.monotonic()
        creates = sum(started < each < now for each in ledger.acknowledged_at)
        outage = Outage(fault, name, ledger.longest_gap(started, now), creates, ledger.by_status() - before)
        print(outage, flush=True)
        if outage.seconds_without_writes > WRITES_BACK_SECONDS:
            self.wrong.append(f"{fault}: no write through {name} for {outage.seconds_without_writes:.1f} s")

    def summary(self) -> str:
        lines = []
        for name, loaded in self._servers.items():
            ledger = _ledger(loaded)
            listed = self.listed.get(name, {})
            lines.append(
                f"{name}: {ledger.statuses.total():,} requests, {len(ledger.answered):,} creates acknowledged,"
                f" {len(lost_customers(ledger, listed))} lost, {len(doubled_customers(listed))} doubled,"
                f" {len(ledger.refused):,} refused, {len(ledger.unknown)} of unknown outcome without a key;"
                f" {text_of_statuses(ledger.by_status())}; slowest response {max(map(max, ledger.seconds.values())):.1f} s"
            )
        return "\n".join(lines)


def _ledger(loaded: LoadedServer) -> TimedLedger:
    assert isinstance(loaded.ledger, TimedLedger)
    return loaded.ledger


def _wrote_since(ledger: TimedLedger, start: float) -> bool:
    return bool(ledger.acknowledged_at) and ledger.acknowledged_at[-1] > start


def _slow_or_unanswered(loaded: LoadedServer) -> list[str]:
    """No server was stopped, so that each request must get a response, in time."""
    found = [
        f"{kind}: {count} requests without a response" for (kind, status), count in loaded.ledger.statuses.items() if not status
    ]
    for kind, seconds in loaded.ledger.seconds.items():
        if max(seconds) > ANSWER_SECONDS:
            found.append(f"{kind}: a response took {max(seconds):.1f} s")
    return found


def text_of_statuses(statuses: Mapping[int, int]) -> str:
    return ", ".join(f"{status or 'broken'}: {count:,}" for status, count in sorted(statuses.items()))


def run(cluster: Cluster, rounds: int, clients: int, seed: int) -> tuple[list[str], str]:
    """Run ``rounds`` of all faults on a cluster that is up. Returns the problems found and the summary."""
    master_key = load_master_key(MASTER_KEY, None, database_file=None)
    urls = {"HAProxy": cluster.proxy_url, "all hosts": cluster.multi_host_url}
    servers: dict[str, LoadedServer] = {}
    try:
        for number, (name, url) in enumerate(urls.items()):
            shops = [Shop(made.shop_id, made.secret_key) for made in (add_shop(url, master_key) for _ in range(2))]
            server = ServerProcess(url, cluster.folder, *OPTIONS, environment={"ECOMCHARGE_MASTER_KEY": MASTER_KEY})
            servers[name] = LoadedServer(server, shops, seed * len(urls) + number, TimedLedger())
            server.start()
        the_run = ClusterRun(cluster, servers, clients)
        found = asyncio.run(the_run.run([fault for _ in range(rounds) for fault in FAULTS]))
        return found, the_run.summary()
    finally:
        for loaded in servers.values():
            loaded.server.end()
