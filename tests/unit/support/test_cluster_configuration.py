"""The files that the page about failover contains are complete, and their limits of time fit together."""

from __future__ import annotations

import re
from pathlib import Path

from support.cluster.configuration import FOLDER, NUMBERS, Configuration, files_of_page


def test_the_files_of_each_node_have_ports_and_a_folder_of_their_own(tmp_path: Path) -> None:
    configuration = Configuration(tmp_path)
    files = [configuration.write("haproxy.cfg")]
    for number in NUMBERS:
        (tmp_path / f"node{number}").mkdir()
        files += [configuration.write(name, number) for name in ("etcd.yml", "patroni.yml")]
    texts = [file.read_text() for file in files]
    assert len(set(configuration.ports.values())) == len(configuration.ports)
    assert len(set(texts)) == 7
    for text in texts:
        assert FOLDER not in text
        assert re.findall(r"nodeN|\b(?:237|238|544|844)[0-3N]\b", text) == []


def test_the_limits_of_time_of_patroni_fit_together() -> None:
    settings = dict(re.findall(r"(\w+): (\S+)$", files_of_page()["patroni.yml"], re.MULTILINE))
    assert int(settings["loop_wait"]) + 2 * int(settings["retry_timeout"]) <= int(settings["ttl"]) == 20
    assert settings["synchronous_mode"] == "true"
