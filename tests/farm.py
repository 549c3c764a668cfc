"""A dairy farm of its own for each test: real processes, free ports, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_ports

from milkrun.consul import Address
from milkrun.settings.folder import Folder
from milkrun.up import leftovers

COMMAND_WITHIN_S = 60.0


class Farm:
    """An environment in a folder, and the `milkrun` command in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder(path)
        self.ups: list[subprocess.Popen[str]] = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CONSUL_", "MILKRUN_"))
        }
        self.registry, self.dns, self.goats, self.goats_stats, self.farmers, self.farmers_stats, first = (
            free_ports(7)
        )
        self.milkrun("init", str(path), "--template", "dairy", here=path.parent)
        # Instances get a range that no test of another worker has: around a port that was free just now.
        settings = (path / "milkrun.toml").read_text()
        for old, new in (
            ("127.0.0.1:8500", f"127.0.0.1:{self.registry}"),
            ("127.0.0.1:8600", f"127.0.0.1:{self.dns}"),
            ("127.0.0.1:8202", f"127.0.0.1:{self.goats}"),
            ("127.0.0.1:8404", f"127.0.0.1:{self.goats_stats}"),
            ("127.0.0.1:8212", f"127.0.0.1:{self.farmers}"),
            ("127.0.0.1:8414", f"127.0.0.1:{self.farmers_stats}"),
            ("[8101, 8199]", f"[{min(first, 65000)}, {min(first, 65000) + 60}]"),
        ):
            settings = settings.replace(old, new)
        (path / "milkrun.toml").write_text(settings)
        self.commit("Ports of its own")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.farmers}/milk"

    @property
    def address(self) -> Address:
        """Its registry, with the token that the registry made when the farm came up."""
        token = self.folder.token_file.read_text().strip()
        return Address(url=f"http://127.0.0.1:{self.registry}", token=token)

    def milkrun(self, *arguments: str, here: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "milkrun", *arguments],
            cwd=here or self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A `milkrun` command that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "milkrun", *arguments],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def up(self) -> subprocess.Popen[str]:
        """`milkrun up`, once it says that everything is up."""
        process = self.start("up")
        self.ups.append(process)
        self.until(process, r"is up\. Try:")
        return process

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=self.path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("commit", "--quiet", "--all", "--message", message)
        return self.git("rev-parse", "HEAD")

    def processes(self) -> dict[str, int]:
        """The pids of everything of this farm that runs, by what it is."""
        found = {name: known.pid for name, known in leftovers.parts(self.folder).items()}
        return found | {
            f"{one.what} {one.identity.pid}": one.identity.pid for one in leftovers.children(self.folder)
        }

    @staticmethod
    def until(process: subprocess.Popen[str], pattern: str) -> str:
        """What the process printed up to the line with the pattern. One that never prints it is killed."""
        assert process.stdout
        watchdog = threading.Timer(COMMAND_WITHIN_S, process.kill)
        watchdog.start()
        text = ""
        try:
            while not re.search(pattern, text):
                line = process.stdout.readline()
                assert line, f"ended before {pattern!r}: {text}"
                text += line
        finally:
            watchdog.cancel()
        return text

    @staticmethod
    def eventually(fact: Callable[[], bool], within_s: float = 20.0) -> None:
        """Waits until the fact is true; it is looked at, because other processes make it so."""
        end = time.monotonic() + within_s
        while not fact():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.05)

    def end(self) -> None:
        for process in self.ups:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        for known in leftovers.parts(self.folder).values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(known.pid, signal.SIGKILL)
        leftovers.kill(self.folder)
