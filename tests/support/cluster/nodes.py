"""The processes of the cluster: etcd, Patroni with PostgreSQL, HAProxy."""

from __future__ import annotations

import contextlib
import csv
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil

from support.cluster.configuration import AGENT, NUMBERS, POSTGRES, PROXY_PORT, PROXY_STATUS_PORT, Configuration
from support.waiting import eventually

DATABASE, ROLE, PASSWORD = "shop", "shop", "shop-password"
SUPERUSER_PASSWORD = "superuser-password"  # of the page
PROGRAMS = ("etcd", "patroni", "haproxy", "/usr/lib/postgresql/15/bin/postgres")
START_TIMEOUT_SECONDS = 120
HTTP_TIMEOUT_SECONDS = 3
SWITCHOVER_TIMEOUT_SECONDS = 60


def path_of(program: str) -> str | None:
    return shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")


def missing_programs() -> list[str]:
    return [program for program in PROGRAMS if path_of(program) is None]


class Part:
    """A process of the cluster in a session of its own, with a log file. It does not run as root."""

    def __init__(self, name: str, folder: Path, user: str | None, *command: str) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._user = user
        self._folder = folder
        self._command = (path_of(command[0]) or command[0], *command[1:])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": str(self._folder), "LANG": "C.UTF-8"}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                user=self._user,
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """The process and its children."""
        return [] if self._process is None else tree_of(self._process.pid)

    def kill(self) -> None:
        if self._process is not None:
            send(self.processes(), signal.SIGKILL)
            self._process.wait()
            self._process = None


class Node:
    """PostgreSQL and its agent, a process of Patroni."""

    def __init__(self, number: int, configuration: Configuration, folder: Path, user: str | None, http: httpx.Client) -> None:
        self._http = http
        self.name = f"node{number}"
        self.port = configuration.port_of(POSTGRES, number)
        self.agent_url = f"http://127.0.0.1:{configuration.port_of(AGENT, number)}"
        self._data = folder / self.name / "data"
        self.agent = Part(f"patroni-{number}", folder, user, "patroni", str(configuration.write("patroni.yml", number)))

    def processes(self) -> list[psutil.Process]:
        """The processes of PostgreSQL and of the agent. The agent does not remain the parent of PostgreSQL."""
        postgres: list[psutil.Process] = []
        with contextlib.suppress(OSError, ValueError, IndexError):
            postgres = tree_of(int((self._data / "postmaster.pid").read_text().splitlines()[0]))
        return [each for each in postgres if _runs_in(each, self._data)] + self.agent.processes()

    def kill(self) -> None:
        """End all processes with SIGKILL, also those that are suspended."""
        send(self.processes(), signal.SIGKILL)
        self.agent.kill()

    def suspend(self) -> None:
        send(self.processes(), signal.SIGSTOP)

    def is_primary(self) -> bool:
        """Whether its agent says so."""
        with contextlib.suppress(httpx.HTTPError):
            return self._http.get(f"{self.agent_url}/primary").status_code == 200
        return False


class Cluster:
    """Three nodes, three members of etcd, and HAProxy, in a temporary folder that is deleted at the end.

    PostgreSQL refuses to run as root. For root everything runs as the user ``nobody``.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ecomcharge-cluster-"))
        user = "nobody" if os.geteuid() == 0 else None
        self._configuration = Configuration(self.folder)
        self._http = httpx.Client(timeout=HTTP_TIMEOUT_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))
        for number in NUMBERS:
            (self.folder / f"node{number}").mkdir()
        self._etcd = [
            Part(f"etcd-{number}", self.folder, user, "etcd", "--config-file", str(self._configuration.write("etcd.yml", number)))
            for number in NUMBERS
        ]
        nodes = [Node(number, self._configuration, self.folder, user, self._http) for number in NUMBERS]
        self.nodes = {node.name: node for node in nodes}
        self._proxy = Part("haproxy", self.folder, user, "haproxy", "-db", "-f", str(self._configuration.write("haproxy.cfg")))
        if user is not None:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)

    @property
    def proxy_url(self) -> str:
        return self._url(f"127.0.0.1:{self._configuration.ports[PROXY_PORT]}")

    @property
    def multi_host_url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())
        return self._url(hosts) + "?target_session_attrs=read-write"

    def _url(self, hosts: str) -> str:
        return f"postgresql://{ROLE}:{PASSWORD}@{hosts}/{DATABASE}"

    def log_files(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def __enter__(self) -> Cluster:
        try:
            for part in self._parts():
                part.start()
            eventually(self.is_healthy, START_TIMEOUT_SECONDS)
            self._create_database()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for node in self.nodes.values():
            node.kill()
        for part in self._parts():
            part.kill()
        self._http.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_data(self) -> None:
        """Delete the data of the nodes, and keep logs and configuration."""
        for path in self.folder.glob("node*"):
            shutil.rmtree(path, ignore_errors=True)

    def _parts(self) -> Iterable[Part]:
        return (*self._etcd, *(node.agent for node in self.nodes.values()), self._proxy)

    def _create_database(self) -> None:
        self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'", f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    def sql(self, *statements: str) -> str:
        """Run statements as the superuser through HAProxy. Returns the values that they print."""
        port = str(self._configuration.ports[PROXY_PORT])
        command = ["psql", "-h", "127.0.0.1", "-p", port, "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "postgres"]
        command += [part for statement in statements for part in ("-c", statement)]
        environment = {**os.environ, "PGPASSWORD": SUPERUSER_PASSWORD}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def members(self) -> list[dict[str, Any]]:
        """The members as an agent reports them; an empty list if no agent does."""
        for node in self.nodes.values():
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                members: list[dict[str, Any]] = self._http.get(f"{node.agent_url}/cluster").json()["members"]
                return members
        return []

    def is_healthy(self) -> bool:
        """Whether there are a leader, a synchronous standby and another standby, and HAProxy sends to the leader only."""
        members = self.members()
        roles = sorted(member["role"] for member in members)
        states = {member["state"] for member in members}
        timelines = {member.get("timeline") for member in members}
        return (
            roles == ["leader", "replica", "sync_standby"]
            and states <= {"running", "streaming"}
            and len(timelines) == 1
            and self.targets_of_proxy() == [self.leader()]
        )

    def leader(self) -> str | None:
        """The name of the node that says that it leads; ``None`` if there is none or more than one."""
        found = [node.name for node in self.nodes.values() if node.is_primary()]
        return found[0] if len(found) == 1 else None

    def targets_of_proxy(self) -> list[str]:
        """The names of the nodes to which HAProxy sends connections."""
        port = self._configuration.ports[PROXY_STATUS_PORT]
        with contextlib.suppress(httpx.HTTPError):
            text = self._http.get(f"http://127.0.0.1:{port}/;csv").text
            return [
                row["svname"]
                for row in csv.DictReader(text.lstrip("# ").splitlines())
                if row["svname"] in self.nodes and row["status"].startswith("UP")
            ]
        return []

    def switch_over(self, leader: str) -> None:
        """Ask for another leader. Returns when it leads; raises ``RuntimeError`` if the agent refuses."""
        url = f"{self.nodes[leader].agent_url}/switchover"
        answer = self._http.post(url, json={"leader": leader}, timeout=SWITCHOVER_TIMEOUT_SECONDS)
        if answer.status_code != 200:
            raise RuntimeError(f"the switchover was refused: {answer.status_code} {answer.text}")


def _runs_in(process: psutil.Process, data: Path) -> bool:
    """Whether it is a process of the PostgreSQL of this folder: an old pid may belong to another process."""
    with contextlib.suppress(psutil.Error):
        return Path(process.cwd()) == data
    return False


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and its children; none if it has ended."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
