"""Commits reach a second repository, whatever was wrong with it meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from milkrun.rollout import push
from milkrun.rollout.git import Git
from milkrun.rollout.push import Pusher


def run(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    run(folder, "commit", "--quiet", "--allow-empty", "--message", "one more")
    return run(folder, "rev-parse", "HEAD")


@pytest.fixture
async def git(tmp_path: Path) -> AsyncIterator[Git]:
    folder = tmp_path / "farm"
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", folder], check=True)
    commit(folder)
    opened = await Git.open(folder, "main")
    yield opened
    await opened.close()


class Pushing:
    """A pusher at work, and each word of trouble or of its end."""

    def __init__(self, git: Git, remote: Path) -> None:
        self.pusher = Pusher(git, f"file://{remote}")
        self._said = asyncio.Queue[str]()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.pusher.run(lambda: self._said.put_nowait(self.pusher.trouble)))
            yield
            task.cancel()

    async def says(self) -> str:
        async with asyncio.timeout(30):
            return await self._said.get()


async def test_a_new_commit_is_pushed_at_once_though_the_last_one_waits_for_its_next_try(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(push, "FIRST_RETRY_S", 3600.0)
    monkeypatch.setattr(push, "LAST_RETRY_S", 3600.0)
    farm, remote = tmp_path / "farm", tmp_path / "remote"
    pushing = Pushing(git, remote)
    async with pushing.running():
        pushing.pusher.wake()
        trouble = await pushing.says()
        assert trouble.startswith(f"commits are not pushed: file://{remote} does not take them: ")
        assert f"git push file://{remote} main" in trouble
        subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
        newest = commit(farm)
        pushing.pusher.wake()
        assert await pushing.says() == ""
    assert run(remote, "rev-parse", "main") == newest


async def test_without_a_new_commit_it_is_tried_again(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(push, "FIRST_RETRY_S", 0.05)
    farm, remote = tmp_path / "farm", tmp_path / "remote"
    pushing = Pushing(git, remote)
    async with pushing.running():
        pushing.pusher.wake()
        assert await pushing.says()
        subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
        assert await pushing.says() == ""
    assert run(remote, "rev-parse", "main") == run(farm, "rev-parse", "main")
