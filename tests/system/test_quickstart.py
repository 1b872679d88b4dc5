"""The commands of the quickstart run in one shell, with a payment in a browser between them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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


def test_the_commands_of_the_quickstart_give_the_documented_answers(
    engine: str, database_url: str, master_key: MasterKey, tmp_path: Path
) -> None:
    for tool in ("curl", "openssl", "bash"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine to run the quickstart with")
    steps = STEP.findall(QUICKSTART.read_text().partition("\n## Subscriptions\n")[2])
    assert len(steps) == 6
    shop = add_shop(database_url, master_key)
    with ServerProcess(database_url, tmp_path, "--sandbox", "--worker", environment=ENVIRONMENT) as process:
        replaced = {
            "/tmp/": f"{tmp_path}/",
            "http://127.0.0.1:8080": process.url,
            "sqlite:///var/ecomcharge.db": database_url,
            ".venv/bin/ecomcharge": f"{sys.executable} -m ecomcharge",
            "9000": str(free_port()),
        }
        environment = {**os.environ, **ENVIRONMENT, "SHOP": str(shop.shop_id), "KEY": shop.secret_key}
        with subprocess.Popen(
            ["bash", "-u"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as shell:
            assert shell.stdin is not None
            assert shell.stdout is not None
            try:
                for number, (commands, expected) in enumerate(steps):
                    for old, new in replaced.items():
                        commands = commands.replace(old, new)
                    shell.stdin.write(f"{commands}\nsleep 0.5\necho end-of-step\n")
                    shell.stdin.flush()
                    printed = list(iter(lambda: str(shell.stdout and shell.stdout.readline()).rstrip("\n"), "end-of-step"))
                    wanted = expected.replace("http://127.0.0.1:8080", process.url).splitlines()
                    assert len(printed) == len(wanted), printed
                    for line, want in zip(printed, wanted, strict=True):
                        assert line.startswith(want.removesuffix("…"))
                    if number == PAID_AFTER:
                        pay_in_a_browser(printed[1])
            finally:
                shell.stdin.write("kill %1\nexit\n")
                shell.stdin.flush()
