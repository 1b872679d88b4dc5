"""The commands of the quickstart print the documented lines, each section in one shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecomcharge.shops.keys import MasterKey
from support.postgres import free_port
from support.process import ServerProcess
from support.shops import ENVIRONMENT, add_shop

QUICKSTART = Path(__file__).parents[2] / "docs" / "quickstart.md"
STEP = re.compile(r"```bash\n(.*?)```(?:\n\n(?:prints\n\n)?```text\n(.*?)\n```)?", re.DOTALL)
PAID_AFTER = 1  # the step that prints the address for the browser


def pay_in_a_browser(address: str) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to open the page with")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine to pay in")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page()
        page.goto(address)
        fields = {"email": "jane@shop.test", "number": "4200000000000000", "exp_month": "12", "exp_year": "99"}
        for name, value in {**fields, "verification_value": "123"}.items():
            page.fill(f"[name={name}]", value)
        page.click("button[type=submit]")
        page.wait_for_load_state("networkidle")
        browser.close()


@dataclass(frozen=True)
class Sandbox:
    """A server, the texts of the quickstart that differ here, and the environment of the shell."""

    url: str
    replaced: Mapping[str, str]
    environment: Mapping[str, str]

    def run(self, steps: Sequence[tuple[str, str]], after: Callable[[int, list[str]], None] | None = None) -> None:
        """Run the commands of the steps in one shell, and compare what they print.

        Calls ``after`` after each step, with its index and the lines that it printed.
        """
        with subprocess.Popen(
            ["bash", "-u"], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            try:
                for number, (commands, expected) in enumerate(steps):
                    for old, new in self.replaced.items():
                        commands = commands.replace(old, new)
                    shell.stdin.write(f"{commands}\nsleep 0.5\necho end-of-step\n")
                    shell.stdin.flush()
                    printed = list(iter(lambda: str(shell.stdout and shell.stdout.readline()).rstrip("\n"), "end-of-step"))
                    wanted = expected.replace("http://127.0.0.1:8080", self.url).splitlines()
                    assert len(printed) == len(wanted), printed
                    for line, want in zip(printed, wanted, strict=True):
                        assert line.startswith(want.removesuffix("…"))
                    if after is not None:
                        after(number, printed)
            finally:
                shell.stdin.write("jobs -p | xargs -r kill\nexit\n")
                shell.stdin.flush()


@pytest.fixture
def sandbox(database_url: str, master_key: MasterKey, tmp_path: Path) -> Iterator[Sandbox]:
    for tool in ("curl", "openssl", "bash"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine to run the quickstart with")
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, tmp_path, "--sandbox", "--worker", environment=ENVIRONMENT) as process:
        replaced = {
            "/tmp/": f"{tmp_path}/",
            "http://127.0.0.1:8080": process.url,
            "sqlite:///var/ecomcharge.db": database_url,
            "var/ecomcharge.db": database_url.removeprefix("sqlite:///"),
            ".venv/bin/ecomcharge": f"{sys.executable} -m ecomcharge",
            "9000": str(free_port()),
        }
        environment = {**os.environ, **ENVIRONMENT, "SHOP": str(shop.shop_id), "KEY": shop.secret_key}
        yield Sandbox(process.url, replaced, environment)


def steps_of(heading: str) -> list[tuple[str, str]]:
    """The commands of each step of a section, and the lines that they print."""
    section = QUICKSTART.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return STEP.findall(section)


def test_the_commands_about_subscriptions_print_the_documented_lines(engine: str, sandbox: Sandbox) -> None:
    def pay(number: int, printed: list[str]) -> None:
        if number == PAID_AFTER:
            pay_in_a_browser(printed[1])

    steps = steps_of("Subscriptions")
    assert len(steps) == 6
    sandbox.run(steps, after=pay)


def test_the_commands_about_customer_data_print_the_documented_lines(engine: str, sandbox: Sandbox) -> None:
    steps = steps_of("Customer data")
    assert len(steps) == 5
    # The last step reads the file of SQLite, until the server removes the name from it, once a minute.
    sandbox.run(steps if engine == "sqlite" else steps[:-1])
