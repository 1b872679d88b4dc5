"""The configuration of the cluster: the files that docs/high-availability.md shows, with other ports and another folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from support.documents import text_of
from support.postgres import free_port

PAGE = "docs/high-availability.md"
FOLDER = "/var/lib/postgresql/cluster"  # of the page
NUMBERS = (1, 2, 3)
# The ports of the page: etcd, etcd between its members, PostgreSQL, Patroni. Each ends with the number of the node.
NODE_PORTS = ("237", "238", "544", "844")
POSTGRES, AGENT = "544", "844"
# The ports of HAProxy: PostgreSQL and its own state.
PROXY_PORT, PROXY_STATUS_PORT = "5440", "8440"

_BLOCK = re.compile(r"^```\w*\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def files_of_page() -> dict[str, str]:
    """The configuration files of the page by name. Their first line is a comment with the name."""
    return dict(_BLOCK.findall(text_of(PAGE)))


class Configuration:
    """The files of the page for ``folder``, on free ports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = files_of_page()
        names = [f"{prefix}{number}" for prefix in NODE_PORTS for number in NUMBERS] + [PROXY_PORT, PROXY_STATUS_PORT]
        self.ports: Mapping[str, int] = _distinct_ports(names)

    def port_of(self, prefix: str, number: int) -> int:
        return self.ports[f"{prefix}{number}"]

    def write(self, name: str, number: int | None = None) -> Path:
        """Write a file, for a node if there is a number. Returns its path."""
        text = self._files[name].replace(FOLDER, str(self._folder))
        path = self._folder / name
        if number is not None:
            text = for_node(text, number)
            path = self._folder / f"node{number}" / name
        text = re.sub(r"(?<=:)\d{4}\b|(?<=port )\d{4}\b", lambda match: str(self.ports[match[0]]), text)
        path.write_text(text)
        return path


def for_node(template: str, number: int) -> str:
    """Replace the letter N at the end of a word, as ``sed`` does on the page."""
    return re.sub(r"(node|\d{3})N\b", rf"\g<1>{number}", template)


def _distinct_ports(names: list[str]) -> dict[str, int]:
    ports: set[int] = set()
    while len(ports) < len(names):
        ports.add(free_port())
    return dict(zip(names, ports, strict=True))
