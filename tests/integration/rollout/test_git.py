"""The engine's view of a real repository: never older than its own commits, and never over somebody else's edit."""

from __future__ import annotations

import asyncio
import subprocess

import msgspec
import pytest

from milkrun.errors import Conflict, InputRefused, MilkrunError, NotFound
from milkrun.model import ServiceName, VersionName, Wish
from milkrun.repository import create
from milkrun.rollout import receipt
from milkrun.rollout.drawing import drawn
from milkrun.rollout.git import Git
from milkrun.rollout.receipt import EPOCH
from milkrun.rollout.state import Intent
from milkrun.settings import deploy

GOAT = ServiceName("goat")
BASE = b'{"version=0.0.1": {"weight": 100, "replicas": 1}}\n'
NEXT = b'{"version=0.0.1": {"weight": 50, "replicas": 1}, "version=0.0.2": {"weight": 50, "replicas": 1}}\n'


def wish(data: bytes) -> Wish:
    return deploy.parse(data, "f")


@pytest.fixture
async def git(tmp_path):
    folder = tmp_path / "env"
    (folder / "deploy").mkdir(parents=True)
    (folder / "services").mkdir()
    (folder / "deploy/goat.json").write_bytes(BASE)
    (folder / "services/goat.toml").write_text('command = ["x"]\n')
    await create(folder, "main", "first")
    git = await Git.open(folder, "main")
    git.folder = folder
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(git.follow())
        yield git
        following.cancel()
    await git.close()


async def commit(git: Git, before: bytes, after: bytes, epoch: int = 1) -> str:
    made = await git.commit(
        GOAT, wish(before), wish(after), after, message=f"step\n\n{EPOCH}: {epoch}\n", epoch=epoch, now=1.0
    )
    return made.id


async def test_what_it_has_committed_it_sees_at_once(git):
    for before, after in [(BASE, NEXT), (NEXT, BASE)] * 5:
        made = await commit(git, before, after)
        head = await git.head(GOAT)
        assert (head.commit, head.wish("f")) == (made, wish(after))


async def test_a_commit_made_twice_is_one_commit(git):
    assert await commit(git, BASE, NEXT) == await commit(git, BASE, NEXT)
    assert (await git.head(GOAT)).generation == 2


async def test_it_commits_over_nobody(git):
    theirs = BASE.replace(b"100", b"77")
    (git.folder / "deploy/goat.json").write_bytes(theirs)
    subprocess.run(["git", "-C", git.folder, "commit", "-qam", "by hand"], check=True)
    with pytest.raises(InputRefused, match="somebody else"):
        await commit(git, BASE, NEXT)
    assert (await git.head(GOAT)).wish("f") == wish(theirs)


async def test_an_engine_that_stood_still_commits_nothing_after_its_successor(git):
    """The file is as it was before: but for its successor's commits, nothing would keep it from going on."""
    await commit(git, BASE, NEXT, epoch=2)
    last = await commit(git, NEXT, BASE, epoch=2)
    with pytest.raises(Conflict, match="later than epoch 1"):
        await commit(git, BASE, NEXT, epoch=1)
    subprocess.run(
        ["git", "-C", git.folder, "commit", "-q", "--allow-empty", "-m", "of a person"], check=True
    )
    with pytest.raises(Conflict):
        await commit(git, BASE, NEXT, epoch=1)
    assert (await git.head(GOAT)).wish("f") == wish(BASE)
    assert await commit(git, BASE, NEXT, epoch=2) != last


async def test_an_edit_that_is_not_committed_is_not_overwritten(git):
    (git.folder / "deploy/goat.json").write_bytes(b"half an edit")
    with pytest.raises(MilkrunError):
        await commit(git, BASE, NEXT)
    assert (git.folder / "deploy/goat.json").read_bytes() == b"half an edit"


async def test_a_repository_that_is_away_is_trouble_and_the_last_head_stays(git):
    before = await git.head(GOAT)
    (git.folder / ".git").rename(git.folder / "gone")
    async with asyncio.timeout(20):
        while not (await git.head(GOAT)).trouble:
            await asyncio.sleep(0.05)
    after = await git.head(GOAT)
    assert (after.commit, after.text) == (before.commit, before.text)
    (git.folder / "gone").rename(git.folder / ".git")
    async with asyncio.timeout(20):
        while (await git.head(GOAT)).trouble:
            await asyncio.sleep(0.05)


async def test_a_service_without_settings_is_not_known(git):
    with pytest.raises(NotFound, match="nobody knows how to run cow"):
        await git.files(ServiceName("cow"))


async def test_a_push_takes_the_commits_to_a_remote_and_says_when_it_cannot(git, tmp_path):
    remote = tmp_path / "remote"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    made = await commit(git, BASE, NEXT)
    await git.push(f"file://{remote}")
    there = subprocess.run(
        ["git", "-C", remote, "rev-parse", "main"], check=True, capture_output=True, text=True
    )
    assert there.stdout.strip() == made
    with pytest.raises(MilkrunError, match="does not take them"):
        await git.push(f"file://{tmp_path}/nowhere")


async def test_an_undo_is_only_for_what_has_served_also_when_the_engine_is_asked(git):
    was = receipt.refused(
        GOAT, Intent(id="1", verb="start", by="x", at=1.0, rollout="r0", version="0.0.2"), "", 1.0
    )
    done = msgspec.structs.replace(was, outcome="done")
    for history in ([], [was], [msgspec.structs.replace(was, outcome="taken-back")]):
        with pytest.raises(Conflict, match="not known to have served"):
            await drawn(git, "r1", GOAT, VersionName("0.0.2"), strategy="undo", history=history)
    plan, _ = await drawn(git, "r1", GOAT, VersionName("0.0.2"), strategy="undo", history=iter([done]))
    assert (plan.version, plan.strategy, plan.old) == ("0.0.2", "undo", {"0.0.1": 100.0})


async def test_a_service_that_nobody_knows_is_told_with_the_nearest_one(git):
    with pytest.raises(NotFound, match="did you mean `goat`"):
        await git.files(ServiceName("goot"))
