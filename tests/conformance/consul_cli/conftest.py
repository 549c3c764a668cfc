"""Consul's own command line, once against `milkrun registry` and once against a real Consul."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conformance.registries import Server, consul, milkrun

ROOT = Path(__file__).parents[3]
COMMAND_WITHIN_S = 60.0
LINE_WITHIN_S = 20.0

_MASKS = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"((?:Create|Modify)Index\"?:? +)\d+"), r"\1<index>"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "<id>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
)
"""What differs between two registries that answer alike."""


def binary() -> str:
    return os.environ.get("MILKRUN_CONSUL") or shutil.which("consul") or str(ROOT / ".parts" / "consul")


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def masked(self) -> Outcome:
        out, err = self.out, self.err
        for pattern, name in _MASKS:
            out, err = pattern.sub(name, out), pattern.sub(name, err)
        return Outcome(self.status, out, err)


class Going:
    """A command that goes on; its lines are awaited."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self) -> str:
        """The next line that it prints."""
        line = self.lines.get(timeout=LINE_WITHIN_S)
        assert line is not None, f"it ended with {self._process.wait()}"
        return line

    def json_where(self, holds: Any) -> Any:
        """The first value from now on that `holds`, of those that it prints one a line."""
        seen = []
        while True:
            try:
                seen.append(json.loads(self.line()))
            except queue.Empty:
                raise AssertionError(f"none of these: {seen}") from None
            if holds(seen[-1]):
                return seen[-1]

    @property
    def silent(self) -> bool:
        return self.lines.empty() and self._process.poll() is None

    def finish(self) -> int:
        """Its exit status, once it has read all that comes."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._process.wait(COMMAND_WITHIN_S)

    def wait(self) -> int:
        return self._process.wait(COMMAND_WITHIN_S)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join(COMMAND_WITHIN_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Cli:
    """Consul's command line, with the address of one registry."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kind = server.kind
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")},
            "CONSUL_HTTP_ADDR": f"127.0.0.1:{server.port}",
        }
        self.going: list[Going] = []

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        done = subprocess.run(
            [binary(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """What a command that must succeed prints."""
        done = self.run(*arguments, stdin=stdin)
        assert done.status == 0, done
        return done.out

    def start(self, *arguments: str) -> Going:
        going = Going([binary(), *arguments], self._environment)
        self.going.append(going)
        return going

    def end(self) -> None:
        for going in self.going:
            going.end()


class Both:
    """Two registries that are told and asked the same."""

    def __init__(self, ours: Cli, theirs: Cli, threads: ThreadPoolExecutor) -> None:
        self.ours, self.theirs = ours, theirs
        self._threads = threads

    def pair(self, *arguments: str, stdin: str = "") -> tuple[Outcome, Outcome]:
        """How the command ends on ours, and on Consul."""
        ends = [self._threads.submit(cli.run, *arguments, stdin=stdin) for cli in (self.ours, self.theirs)]
        ours, theirs = (end.result() for end in ends)
        return ours, theirs

    def same(self, *arguments: str, stdin: str = "") -> Outcome:
        """How the command ends, which is the same on both."""
        ours, theirs = self.pair(*arguments, stdin=stdin)
        assert ours.masked == theirs.masked
        return ours

    def tell(self, *arguments: str, stdin: str = "") -> str:
        """What a command that succeeds prints, which is the same on both."""
        done = self.same(*arguments, stdin=stdin)
        assert done.status == 0, done
        return done.out


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "consul").mkdir()
    with milkrun(folder) as ours, consul(folder / "consul") as theirs:
        yield {"milkrun": ours, "consul": theirs}


@pytest.fixture(scope="session")
def both(servers: dict[str, Server]) -> Iterator[Both]:
    with ThreadPoolExecutor(2) as threads:
        yield Both(Cli(servers["milkrun"]), Cli(servers["consul"]), threads)


@pytest.fixture(params=["milkrun", "consul"])
def cli(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Cli]:
    """One of the two, for what has no one output to compare."""
    with contextlib.closing(_Ending(Cli(servers[request.param]))) as ending:
        yield ending.cli


class _Ending:
    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.close = cli.end


_names = itertools.count()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"name-{next(_names)}"
