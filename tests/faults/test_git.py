"""F22: a git remote that is away, hangs, refuses, makes no sense or has too much changes nothing of what is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from pathlib import Path

import msgspec

from milkrun.consul import keys
from milkrun.gitsync import daemon, tree
from milkrun.model import SyncReport
from milkrun.repository import mirror

from .conftest import SOAK


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=heidi", "-c", "user.email=heidi@alp"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, check=True)
    return done.stdout.decode().strip()


def commit(farm: Path, weights: dict[str, float]) -> str:
    text = {f"version={name}": {"weight": weight} for name, weight in weights.items()}
    (farm / "deploy" / "goat.json").write_text(json.dumps(text))
    git(farm, "add", "-A")
    git(farm, "commit", "-q", "--allow-empty", "-m", "x")
    return git(farm, "rev-parse", "HEAD")


def a_farm(herd, folder: Path) -> Path:
    """A repository with the settings that the herd's router has."""
    for part in ("deploy", "services"):
        (folder / part).mkdir(parents=True)
    lines = ['name = "test"', "[routers.lb-goat]", 'service = "goat"']
    lines += ['listen = "{}:{}"'.format(*herd.listen), 'stats = "{}:{}"'.format(*herd.stats)]
    (folder / "milkrun.toml").write_text("\n".join(lines) + "\n")
    (folder / "services" / "goat.toml").write_text('command = ["goat"]\n')
    git(folder.parent, "init", "-q", "-b", "main", str(folder))
    return folder


async def test_f22_a_git_remote_in_trouble(herd, chance, tmp_path, monkeypatch):
    """Each kind of trouble is said, costs no request, and the next commit is followed when it is over."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(mirror, "FETCH_WAIT_S", 1.0)
    monkeypatch.setattr(mirror, "FETCH_BYTES_AT_MOST", 1 << 20)
    monkeypatch.setattr(tree, "FILES_AT_MOST", 100)
    await herd.three()
    farm = a_farm(herd, tmp_path / "farm")
    commit(farm, {"0.0.1": 75, "0.0.2": 25})
    async with asyncio.TaskGroup() as tasks, herd.router():
        sync = tasks.create_task(
            daemon.run(
                herd.registry.address,
                repository=f"file://{farm}",
                branch="main",
                state_dir=tmp_path / "gitsync",
                host="shed",
                poll_s=0.1,
            )
        )
        async with herd.load():
            for trouble in chance.sample(TROUBLES, len(TROUBLES) if SOAK else 2):
                with trouble(farm):
                    await said(herd, lambda report: report.trouble)
                    await herd.more(30)
                now = commit(farm, {"0.0.1": chance.randrange(1, 100), "0.0.2": 50})
                await said(herd, lambda report, now=now: report.commit == now and not report.trouble)
                await herd.reported(lambda report, now=now: report.commit == now and not report.drift)
        sync.cancel()
    herd.proved()


async def said(herd, fact) -> SyncReport:
    """gitsync's first report of which the fact is true."""
    async with asyncio.timeout(60):
        while True:
            pair = await herd.registry.get(keys.SYNC_REPORT)
            if pair and fact(found := msgspec.json.decode(pair.data, type=SyncReport)):
                return found
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def away(farm: Path):
    farm.rename(farm.with_name("away"))
    yield
    farm.with_name("away").rename(farm)


@contextlib.contextmanager
def hangs(farm: Path):
    """Whoever reads the branch's name waits for ever: it is a pipe that nobody writes to."""
    head = farm / ".git" / "HEAD"
    text = head.read_text()
    head.unlink()
    subprocess.run(["mkfifo", str(head)], check=True)
    yield
    head.unlink()
    head.write_text(text)


@contextlib.contextmanager
def refuses(farm: Path):
    """What is served there is no repository."""
    (farm / ".git").rename(farm / "hidden")
    yield
    (farm / "hidden").rename(farm / ".git")


@contextlib.contextmanager
def nonsense(farm: Path):
    """The branch names a commit that is not there."""
    branch = farm / ".git" / "refs" / "heads" / "main"
    text = branch.read_text()
    branch.write_text("c0ffee" * 6 + "c0ff\n")
    yield
    branch.write_text(text)


@contextlib.contextmanager
def too_large(farm: Path):
    """A commit has a large file, until it is taken back."""
    before = git(farm, "rev-parse", "HEAD")
    (farm / "large").write_bytes(os.urandom(3 << 20))
    git(farm, "add", "-A")
    git(farm, "commit", "-q", "-m", "large")
    yield
    git(farm, "reset", "-q", "--hard", before)


@contextlib.contextmanager
def too_many(farm: Path):
    """A commit has more files than anybody's services need, until the next one."""
    files = [farm / "deploy" / f"{number}.txt" for number in range(200)]
    for file in files:
        file.touch()
    git(farm, "add", "-A")
    git(farm, "commit", "-q", "-m", "many")
    yield
    for file in files:
        file.unlink()


TROUBLES = [away, hangs, refuses, nonsense, too_large, too_many]
