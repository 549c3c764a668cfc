"""A PostgreSQL cluster of the tests' own, on a socket in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from milkrun.rollout.migrations.database import Address


class Cluster:
    """Stopped when the tests end. fsync is off: what is killed here is the server, never the machine."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="mr-pg-"))
        found = shutil.which("initdb")
        self._bin = Path(found).parent if found else max(Path("/usr/lib/postgresql").glob("*/bin"))
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.home, "postgres")
        self._databases = 0
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    @property
    def _data(self) -> str:
        return str(self.home / "data")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments], user=self._user, cwd=self.home, check=True, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        """It answers. It is a child of ours: killed, it is gone, also where nobody reaps orphans."""
        options = ["fsync=off", "listen_addresses=", "max_connections=40", "shared_buffers=32MB"]
        with (self.home / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    self._bin / "postgres",
                    *("-D", self._data, "-k", str(self.home)),
                    *(f"--{option}" for option in options),
                ],
                user=self._user, cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
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

    def stop(self) -> None:
        """It has ended, and nothing of it is left."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(30)
        shutil.rmtree(self.home)

    def url(self, database: str) -> str:
        """Where a database of it is."""
        return f"postgresql://postgres@/{database}?host={self.home}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"farm{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.url(name)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.stop()


@pytest.fixture
def url(cluster) -> str:
    """A database with bottles in it."""
    url = cluster.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "create table bottles (id bigserial primary key, name text not null, litres int not null)"
        )
        connection.execute(
            "insert into bottles (name, litres) select 'goat' || i % 7, 1 + i % 5 from generate_series(1, 5000) i"
        )
        connection.execute("analyze bottles")
    return url


@pytest.fixture
def address(url) -> Address:
    return Address(url)
