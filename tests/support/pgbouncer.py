"""PgBouncer, a pooler of connections to PostgreSQL, from the machine's package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from support.postgres import PostgresServer, free_port

START_TIMEOUT_SECONDS = 10


class PgBouncer:
    """PgBouncer in front of a server. ``mode`` is ``session`` or ``transaction``.

    It refuses to run as root. For root it runs as the user ``nobody``.
    """

    def __init__(
        self, postgres: PostgresServer, mode: str, *, server_connections: int = 20, client_connections: int = 500
    ) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="ecomcharge-pgbouncer-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        (self._folder / "users.txt").write_text('"postgres" ""\n')
        (self._folder / "pgbouncer.ini").write_text(
            f"""[databases]
* = host=127.0.0.1 port={postgres.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self._folder}/users.txt
pool_mode = {mode}
default_pool_size = {server_connections}
max_client_conn = {client_connections}
"""
        )
        if self._user:
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, pwd.getpwnam(self._user).pw_uid, -1)

    @staticmethod
    def program() -> str | None:
        return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def __enter__(self) -> PgBouncer:
        program = self.program()
        assert program is not None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._folder / "pgbouncer.ini")], user=self._user, stdout=log, stderr=log, cwd="/"
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while "process up" not in self.log():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log())
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)
