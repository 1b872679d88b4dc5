"""The API description agrees with a running server."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ecomcharge.runtime.api_description import describe_api
from ecomcharge.shops.keys import MasterKey
from support.process import ServerProcess
from support.shops import ENVIRONMENT, Shop, add_shop

MAX_EXAMPLES = 10  # examples per operation besides those of the coverage phase; a time limit would depend on the machine
CLOCK = "/sandbox/clock"


def test_the_api_description_is_served_without_credentials(server: Shop) -> None:
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert answer.json() == describe_api(server.url)


def test_the_api_description_has_the_clock_only_in_the_sandbox(http: httpx.Client) -> None:
    for path, methods in describe_api()["paths"].items():
        if path.startswith(CLOCK):
            [method] = methods
            answer = http.request(method, path, json={})
            assert (answer.status_code, answer.json()) == (404, {"message": "Route not found"})


@pytest.mark.parametrize(
    "path", ["/process/%00", "/v2/checkout?token=%00", "/plans/%00/pay", "/v2/confirm_order/%00/1", "/plans/%00"]
)
def test_random_paths_get_a_documented_response(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_schemathesis_reports_no_failure_on_a_running_server(server: Shop, tmp_path: Path) -> None:
    own = "/openapi.json"  # schemathesis reads it and does not test it
    described = sum(len(methods) for path, methods in describe_api()["paths"].items() if not path.startswith((CLOCK, own)))
    run_schemathesis(server, tmp_path, described, "--exclude-path-regex", f"^{CLOCK}")


def test_schemathesis_reports_no_failure_at_the_clock(
    new_database_url: Callable[[], str], master_key: MasterKey, tmp_path: Path
) -> None:
    """It uses a separate server, because the clock applies to the whole server."""
    with ServerProcess(new_database_url(), tmp_path, "--sandbox", environment=ENVIRONMENT) as process:
        credentials = add_shop(process.database, master_key)
        shop = Shop(process.url, credentials.shop_id, credentials.secret_key, process)
        phases = ("--phases", "examples,coverage,fuzzing")  # these operations have no links
        run_schemathesis(shop, tmp_path, 6, "--include-path-regex", f"^{CLOCK}", *phases)


def run_schemathesis(shop: Shop, folder: Path, operations: int, *options: str) -> None:
    """Run schemathesis with every check and, unless ``options`` select some, every phase. Its output includes the seed."""
    command = [
        str(Path(sysconfig.get_path("scripts"), "schemathesis")),
        *("run", f"{shop.url}/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        # The only DELETE cancels a subscription, and a canceled one stays readable as a financial record.
        *("--exclude-checks", "use_after_free"),
        *("--max-examples", str(MAX_EXAMPLES)),
        "--suppress-health-check=filter_too_much,too_slow",  # about the generation of examples, not about the program
        *("--continue-on-failure", "--no-color", "--generation-database", "none"),
        *("--auth", f"{shop.shop_id}:{shop.secret_key}", "--output-sanitize", "false", "--output-truncate", "false"),
        # Credentials are given by the command: the check removes a header that --auth adds again.
        *("--generation-with-security-parameters", "false"),
        *options,
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "support.schemathesis_hooks",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SHOP_URL": shop.url,
        "SHOP_ID": str(shop.shop_id),
        "SHOP_KEY": shop.secret_key,
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout)  # pytest prints it if the test fails
    assert done.returncode == 0, f"schemathesis: {seed_of(done.stdout)}\n{done.stderr}"
    assert re.search(rf"API Operations:\n +Selected: {operations}/\d+\n +Tested: {operations}\n", done.stdout), done.stdout


def seed_of(output: str) -> str:
    found = re.search(r"Seed: \d+", output)
    return found.group() if found else "no seed"
