"""What the documents claim: their commands are run, their tables compared with the program."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import Shop
from ecomcharge import Client, errors, fields
from ecomcharge.customers.model import FIELD_NAMES
from ecomcharge.settings import Settings
from ecomcharge.web.listing import DEEPEST_OFFSET, DEFAULT_LIMIT, MAXIMUM_LIMIT
from ecomcharge.web.wire import STATUS_OF

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
COMMAND_AND_ANSWER = re.compile(r"```sh\n(.*?)```\n\n```json\n(.*?)\n```", re.DOTALL)
CUSTOMER_ID = re.compile(r"cst_[0-9a-f]{16}")


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md"])
def test_every_command_gives_the_answer_that_stands_below_it(document: str, server: Shop) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine to run the documents' commands with")
    pairs = COMMAND_AND_ANSWER.findall(text_of(document))
    assert len(pairs) == text_of(document).count("```sh\n") >= 3
    environment = {**os.environ, "SHOP": str(server.shop_id), "KEY": server.secret_key}
    for command, answer in pairs:
        script = command.replace("http://127.0.0.1:8080", server.url).replace("curl ", "curl -s ")
        done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True)
        assert CUSTOMER_ID.sub("cst_", done.stdout.strip()) == CUSTOMER_ID.sub("cst_", answer)


def test_the_python_example_of_the_readme_runs(server: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    [example] = re.findall(r"```python\n(.*?)```", text_of("README.md"), re.DOTALL)
    names = {"shop_id": server.shop_id, "secret_key": server.secret_key, "Client": Client}
    exec(example.replace("http://127.0.0.1:8080", server.url), names)
    assert "customer@example.com" in capsys.readouterr().out


def written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| `ECOMCHARGE_[A-Z_]+` \|(.*?)\|", text_of("docs/operations.md"), re.MULTILINE))
    for setting in dataclasses.fields(Settings):
        name = setting.name.replace("_", "-")
        assert f"`ECOMCHARGE_{setting.name.upper()}`" in text_of("docs/operations.md")
        default = rows.pop(name).strip(" `")
        if setting.name != "master_key_file":  # its default is a place, told in words
            assert default == written(setting.default)
        assert re.search(rf"^    {setting.name}\n        \S", Settings.__doc__ or "", re.MULTILINE), setting.name
    assert rows == {}


def test_every_error_is_documented_with_its_status_code_and_sentence() -> None:
    table = text_of("docs/api.md")
    for kind, status in STATUS_OF.items():
        row = re.search(rf"^\| {status} \| `{kind.code}` \| (.*?) \|", table, re.MULTILINE)
        assert row is not None, kind
        if kind not in (errors.BadParameter, errors.Invalid):
            assert row[1] == kind.message


def test_every_error_has_a_status() -> None:
    assert set(STATUS_OF) == set(errors.EcomchargeError.__subclasses__()) - {errors.Unusable}


def test_every_field_text_and_limit_is_documented() -> None:
    document = text_of("docs/api.md")
    for name in (*FIELD_NAMES, fields.BLANK, fields.INVALID, fields.INVALID_IP, fields.NOT_A_STRING):
        assert f"`{name}`" in document
    assert fields.TOO_LONG.format(maximum=255) in document
    assert f"{DEFAULT_LIMIT} unless given; at most {DEEPEST_OFFSET:,} customers" in document
    assert f"1 to {MAXIMUM_LIMIT}; {DEFAULT_LIMIT} when only a cursor is given" in document


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_two_commands_stand_first_in_the_readme() -> None:
    first = text_of("README.md").split("```")[1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == ["make serve", "make test"]


def test_no_file_names_a_download_address() -> None:
    for lock in ROOT.glob("requirements/*.txt"):
        assert "://" not in lock.read_text()
        assert lock.read_text().count("--hash=sha256:") > 20
