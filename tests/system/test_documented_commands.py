"""The commands of the documentation run with the documented output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ecomcharge.webhooks.model import SigningKey, pem_of
from support.documents import text_of
from support.shops import Shop

COMMAND_AND_ANSWER = re.compile(r"```sh\n(.*?)```\n\n```json\n(.*?)\n```", re.DOTALL)
CUSTOMER_ID = re.compile(r"cst_[0-9a-f]{16}")


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md"])
def test_every_documented_command_gives_the_documented_output(document: str, server: Shop) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine to run the documents' commands with")
    pairs = COMMAND_AND_ANSWER.findall(text_of(document))
    assert len(pairs) == text_of(document).count("```sh\n") >= 3
    environment = {**os.environ, "SHOP": str(server.shop_id), "KEY": server.secret_key}
    for command, answer in pairs:
        script = command.replace("http://127.0.0.1:8080", server.url).replace("curl ", "curl -s ")
        done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=True)
        assert CUSTOMER_ID.sub("cst_", done.stdout.strip()) == CUSTOMER_ID.sub("cst_", answer)


def test_the_commands_of_the_reference_check_a_signature(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine to run the reference's commands with")
    [commands] = re.findall(r"```sh\n(.*?)```", text_of("docs/api.md"), re.DOTALL)
    key, body = SigningKey.new(), '{"id":"sbs_7aee5afb954c7ef9"}'
    (tmp_path / "key.txt").write_text(key.public_text())
    (tmp_path / "body.json").write_text(body)
    (tmp_path / "signature.txt").write_text(key.signature(body.encode()))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "Verified OK\n"
    assert (tmp_path / "key.pem").read_text() == pem_of(key.public_text())
