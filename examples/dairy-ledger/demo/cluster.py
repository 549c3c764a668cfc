"""A private PostgreSQL cluster in a folder of its own, on a port of loopback, which is gone when it is over."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
"""Where distributions keep the server's programs off PATH."""
STARTED_WITHIN_S = 60
OPTIONS = ("fsync=off", "max_connections=60", "shared_buffers=64MB", "listen_addresses=127.0.0.1")
"""fsync is off because nothing of it outlives the demo."""


class ProgramsMissing(Exception):
    """There is no PostgreSQL server here. Says what to install."""


def programs() -> Path:
    """The folder with `initdb` and `postgres`, of the newest server there is."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(
        (folder for place in PLACES for folder in Path("/").glob(place[1:])), key=_version, reverse=True
    )
    for folder in found:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    raise ProgramsMissing(
        "a PostgreSQL server's own programs (initdb, postgres) are not here\n"
        "  Debian, Ubuntu: apt-get install postgresql    Fedora: dnf install postgresql-server\n"
        "  macOS: brew install postgresql                elsewhere: put their folder on PATH"
    )


def _version(folder: Path) -> int:
    return max(
        (int(part) for part in folder.parent.name.replace("-", "@").split("@") if part.isdigit()), default=0
    )


@contextmanager
def cluster(port: int) -> Iterator[str]:
    """The URL of an empty database in a cluster that runs meanwhile."""
    bin_ = programs()
    user = _user()
    home = Path(tempfile.mkdtemp(prefix="milkrun-pg-"))
    try:
        password = secrets.token_urlsafe(18)
        (home / "password").write_text(password)
        if user:
            for path in (home, home / "password"):
                shutil.chown(path, user)
        data = str(home / "data")
        _run(user, home, bin_ / "initdb", "-D", data, "-U", "ledger", "-A", "scram-sha-256", "--pwfile",
             str(home / "password"), "--no-sync", "-E", "UTF8", "--locale=C")  # fmt: skip
        with (home / "log").open("wb") as log:
            # In a session of its own: Ctrl-C is ours to hear, and the server goes last.
            server = subprocess.Popen(
                [bin_ / "postgres", "-D", data, "-k", str(home), "-p", str(port)]
                + [f"--{option}" for option in OPTIONS],
                user=user, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            yield _database(f"postgresql://ledger:{password}@127.0.0.1:{port}", server, home / "log")
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's fast way: it ends the sessions that there are
            server.wait(30)
    finally:
        shutil.rmtree(home)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid():
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise ProgramsMissing("as root, PostgreSQL needs the user `postgres` to run as") from None


def _run(user: str | None, home: Path, *command: object) -> None:
    done = subprocess.run(
        [str(part) for part in command], user=user, cwd=home, check=False, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if done.returncode:
        raise ProgramsMissing(f"initdb ended with {done.returncode}: {done.stdout.strip()[-500:]}")


def _database(server_url: str, server: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE ledger")
            break
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise ProgramsMissing(f"PostgreSQL does not start: {log.read_text()[-500:]}") from None
            time.sleep(0.05)
    return f"{server_url}/ledger"
