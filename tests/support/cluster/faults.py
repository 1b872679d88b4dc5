"""Failures of the leader. Each is a context: it fails, the caller waits for writes, and at the end the node returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from support.cluster.nodes import Cluster, Node

POLL_SECONDS = 0.2
ELECTION_TIMEOUT_SECONDS = 60.0

Fault = Callable[[Cluster], AbstractAsyncContextManager[None]]


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition that may block for a moment, in a thread."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} seconds: {what}")
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def switchover(cluster: Cluster) -> AsyncIterator[None]:
    """The leader hands over to a standby, as for maintenance."""
    leader = await _leader(cluster)
    await asyncio.to_thread(cluster.switch_over, leader.name)
    await _another_leader(cluster, leader)
    yield


@asynccontextmanager
async def kill(cluster: Cluster) -> AsyncIterator[None]:
    """PostgreSQL and agent of the leader end with SIGKILL, and start again when another node leads."""
    leader = await _leader(cluster)
    await asyncio.to_thread(leader.kill)
    await _another_leader(cluster, leader)
    yield
    leader.agent.start()


@asynccontextmanager
async def freeze(cluster: Cluster) -> AsyncIterator[None]:
    """PostgreSQL and agent of the leader are suspended, and killed before they would continue (fencing)."""
    leader = await _leader(cluster)
    await asyncio.to_thread(leader.suspend)
    await _another_leader(cluster, leader)
    yield
    targets = await asyncio.to_thread(cluster.targets_of_proxy)
    if leader.name in targets:
        raise RuntimeError(f"HAProxy sends to the suspended {leader.name}")
    await asyncio.to_thread(leader.kill)
    leader.agent.start()


FAULTS: tuple[Fault, ...] = (switchover, kill, freeze)


async def _leader(cluster: Cluster) -> Node:
    name = await asyncio.to_thread(cluster.leader)
    if name is None:
        raise RuntimeError("the cluster has no leader")
    return cluster.nodes[name]


async def _another_leader(cluster: Cluster, former: Node) -> None:
    others = [node for node in cluster.nodes.values() if node is not former]
    await until(lambda: any(node.is_primary() for node in others), ELECTION_TIMEOUT_SECONDS, "another node leads")
