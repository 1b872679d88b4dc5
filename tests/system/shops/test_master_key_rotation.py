"""The master key is replaced while servers run."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx

from ecomcharge.shops.keys import make_master_key
from support.builders import a_card, a_plan
from support.commands import ecomcharge
from support.process import ServerProcess
from support.waiting import eventually


def test_the_file_of_the_master_key_is_replaced_in_a_running_server(database_url: str, tmp_path: Path) -> None:
    """Every request is answered; a retry of a charge from before the rotation is recognised until the old key is removed."""
    file, old, new = tmp_path / "master-key", make_master_key(), make_master_key()
    file.write_text(old)
    environment = {"ECOMCHARGE_MASTER_KEY_FILE": str(file)}
    made = ecomcharge(database_url, "shops", "create", "--name", "Test", "--json", environment=environment).stdout
    credentials = httpx.Response(200, text=made).json()
    body = {"plan": a_plan(title="x"), "customer": {"email": "j@shop.test"}, "card": a_card()}
    with (
        ServerProcess(database_url, tmp_path, "--sandbox", "--worker", environment=environment) as process,
        httpx.Client(base_url=process.url, auth=(str(credentials["shop_id"]), credentials["secret_key"])) as http,
    ):
        charge = http.post("/subscriptions", json=body, headers={"Idempotency-Key": "charge"})
        assert charge.status_code == 201
        for keys in (f"{old}\n{new}", f"{new}\n{old}"):
            file.write_text(keys)
            _reload(process)
            assert http.get("/customers").status_code == 200
        rotated = ecomcharge(database_url, "master-key", "rotate", environment=environment)
        assert (rotated.returncode, rotated.stderr) == (0, "")
        again = http.post("/subscriptions", json=body, headers={"Idempotency-Key": "charge"})
        assert (again.status_code, again.json()["id"]) == (201, charge.json()["id"])
        file.write_text(new)
        _reload(process)
        assert http.get("/customers").status_code == 200
        later = http.post("/subscriptions", json=body, headers={"Idempotency-Key": "charge"})
        assert later.status_code == 422  # refused, and not charged twice


def _reload(process: ServerProcess) -> None:
    before = set(process.worker_pids())
    assert process.process is not None
    process.process.send_signal(signal.SIGHUP)
    assert eventually(lambda: len(process.worker_pids()) == 1 and not before & set(process.worker_pids()), 60)
