"""Send requests and run commands for tests of running servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import httpx

from ecomcharge.shops.model import Credentials
from support.builders import a_customer
from support.process import ServerProcess
from support.shops import ENVIRONMENT

JOHN = a_customer()
GOOD = json.dumps(JOHN).encode()


def auth(shop: Credentials) -> tuple[str, str]:
    return str(shop.shop_id), shop.secret_key


def get(process: ServerProcess, path: str, shop: Credentials | tuple[str, str] | None = None, **headers: str) -> httpx.Response:
    """Send a request on a new connection."""
    return httpx.get(
        process.url + path,
        auth=auth(shop) if isinstance(shop, Credentials) else shop,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        verify=False,  # plain HTTP: loading the machine's certificates would take longer than the request
    )


def command(
    *arguments: str, environment: dict[str, str] | None = None, timeout_seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run ``ecomcharge`` in another process until it ends."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("ECOMCHARGE_")}
    return subprocess.run(
        [sys.executable, "-m", "ecomcharge", *arguments],
        env=cleared | (ENVIRONMENT if environment is None else environment),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


def counted(process: ServerProcess, route: str = "/customers", method: str = "GET", status: int = 200) -> int:
    """Returns the number of requests of a kind that ``/metrics`` has counted."""
    text = get(process, "/metrics").text
    labels = {f'route="{route}"', f'method="{method}"', f'status="{status}"'}
    for line in text.splitlines():
        name, _, rest = line.partition("{")
        if name == "ecomcharge_request_duration_seconds_count" and labels == set(rest.rpartition("}")[0].split(",")):
            return int(float(rest.rpartition(" ")[2]))
    return 0
