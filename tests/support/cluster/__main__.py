"""``python -m support.cluster --rounds 3`` starts the cluster, and injects each fault three times under load."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from support.cluster.nodes import Cluster, missing_programs
from support.cluster.run import run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each fault once: a switchover, a kill, a suspension")
    parser.add_argument("--clients", type=int, default=3, help="for each of the two servers")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    if missing := missing_programs():
        print(f"missing: {', '.join(missing)}; on Debian: apt-get install etcd-server patroni haproxy postgresql-15")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything is stopped
    started = time.monotonic()
    cluster = Cluster()
    try:
        with cluster:
            print(f"seed {options.seed}: the cluster is up after {time.monotonic() - started:.0f} s", flush=True)
            found, summary = run(cluster, options.rounds, options.clients, options.seed)
        print(summary, *found[:50] or ["no problem was found"], f"{time.monotonic() - started:.0f} s", sep="\n")
    except KeyboardInterrupt:
        cluster.remove()
        print("interrupted; everything was stopped and deleted")
        return 130
    except Exception:
        _keep_logs(cluster)
        raise
    if found:
        _keep_logs(cluster)
    else:
        cluster.remove()
    return 1 if found else 0


def _keep_logs(cluster: Cluster) -> None:
    cluster.remove_data()
    print("logs:", *cluster.log_files(), sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
