"""A PostgreSQL cluster of the tests' own, on a socket in a folder of its own, and a replica of it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

OPTIONS = ("fsync=off", "listen_addresses=", "max_connections=60", "shared_buffers=32MB")


class Cluster:
    """Stopped when the tests end. fsync is off: what is killed here is the server, never the machine.

    `within` is a command before the server's, as that of a mount namespace; with `of` it is a replica of that one.
    """

    def __init__(
        self, *, within: tuple[str, ...] = (), initdb: tuple[str, ...] = (), of: Cluster | None = None
    ) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mr-pg-"))
        self._within = within
        found = shutil.which("initdb")
        self._bin = Path(found).resolve().parent if found else max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.home, "postgres")
        self._databases = 0
        data = str(self.home / "data")
        if of:
            source = ("-h", str(of.home), "-U", "postgres", "-c", "fast", "-X", "stream")
            self._run("pg_basebackup", "-D", data, "--no-sync", "--write-recovery-conf", *source)
        else:
            more = ("-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", *initdb)
            self._run("initdb", "-D", data, *more)
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments], user=self._user, cwd=self.home, check=True, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """It answers. It is a child of ours: killed, it is gone, also where nobody reaps orphans."""
        command = [str(self._bin / "postgres"), "-D", str(self.home / "data"), "-k", str(self.home)]
        command += [f"--{option}" for option in OPTIONS]
        user = self._user
        if self._within:
            # Only root enters a namespace, and only another user runs a server.
            command = [
                *self._within,
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                *command,
            ]
            user = None
        with (self.home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                command, user=user, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert self._server.poll() is None, (self.home / "log").read_text()[-1000:]
                assert time.monotonic() < until
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """All its processes have ended at once, as by the kernel's out-of-memory killer."""
        first = self._server.pid
        rest = map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())
        held = [(pid, os.pidfd_open(pid)) for pid in rest]
        self._server.kill()
        self._server.wait(30)
        for pid, fd in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            select.select([fd], [], [], 30)
            os.close(fd)

    @property
    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return self._server.poll() is not None

    def stop(self) -> None:
        """It has ended, and nothing of it is left."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(30)
        shutil.rmtree(self.home)

    def url(self, database: str, user: str = "postgres") -> str:
        """Where a database of it is."""
        return f"postgresql://{user}@/{database}?host={self.home}"

    def database(self, more: str = "") -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"farm{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name} {more}".encode())
        return self.url(name)


def bottles(url: str, rows: int = 5000) -> None:
    """The database has the first version's table, with so many rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create table bottles (id bigserial primary key, name text not null, litres int not null)"
        )
        connection.execute(
            "insert into bottles (name, litres) select 'goat' || i %% 7, 1 + i %% 5 from generate_series(1, %s::int) i",
            (rows,),
        )
        connection.execute("analyze bottles")
