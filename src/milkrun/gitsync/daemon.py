"""Keeps the registry saying what git says: on every commit, every ten seconds, when the registry comes back."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import structlog

from milkrun.consul import Address, Registry, Watch, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.presence import Presence, component
from milkrun.errors import MilkrunError
from milkrun.gitsync import secrets, tree
from milkrun.gitsync.publish import LostLock, Outcome, Publisher
from milkrun.gitsync.tree import Wanted
from milkrun.model import CommitMark, SyncReport
from milkrun.repository import (
    Mirror,
    QuickReader,
    Repository,
    Sight,
    Tip,
    is_remote,
    local_tips,
    mirrored_tips,
)

REASSERT_S = 10.0
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0


async def run(
    address: Address, *, repository: Path | str, branch: str, state_dir: Path, host: str, poll_s: float = 5.0
) -> None:
    """Publishes the branch of the repository (a folder, or a URL fetched each `poll_s`) until cancelled.

    Raises NotFound when the folder is no repository, InputRefused for a URL that cannot be followed.
    """
    _make(state_dir)
    source, sights, shown = await _source(repository, branch, state_dir, poll_s)
    async with source, Registry(address) as registry:
        presence = Presence(
            registry, component("milkrun-gitsync", host, "", 0), [keys.SYNC_REPORT], state_dir
        )
        sync = Sync(registry, presence, source, repository=shown, branch=branch)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(presence.run())
                tasks.create_task(sync.watch_git(sights))
                tasks.create_task(sync.watch_lock())
                tasks.create_task(sync.act())
        finally:
            await presence.end()


class Sync:
    """The loop between one repository and one registry. Only the holder of the report's lock writes."""

    def __init__(
        self, registry: Registry, presence: Presence, source: QuickReader, *, repository: str, branch: str
    ) -> None:
        self._registry = registry
        self._presence = presence
        self._source = source
        self._publisher = Publisher(registry, lambda: presence.session.id)
        self._log = structlog.get_logger("gitsync")
        self._wake = asyncio.Event()
        self._sight = Sight(None)
        self._holder = ""
        self._read: tuple[CommitMark, Wanted] | None = None
        self._report = SyncReport(
            repository=repository, branch=branch, commit=None, generation=0, synced_at=0.0
        )
        presence.publish(keys.SYNC_REPORT, self._report)

    async def watch_git(self, sights: AsyncIterator[Sight]) -> None:
        """Never returns: notes each new sight of the branch, and wakes `act`."""
        async for sight in sights:
            self._sight = sight
            self._wake.set()

    async def watch_lock(self) -> None:
        """Never returns: notes who holds the report's lock; wakes `act` when that changes or data was lost."""
        index = 0
        async for answer in Watch(self._registry, f"/v1/kv/{keys.SYNC_REPORT}"):
            pairs = decode(answer.body, list[wire.Pair]) if answer.status == 200 else []
            holder = (pairs[0].session or "") if pairs else ""
            if holder != self._holder or answer.index < index:
                self._holder = holder
                self._wake.set()
            index = answer.index

    async def act(self) -> None:
        """Never returns: brings the registry to what git says, whenever woken and every ten seconds."""
        failures = 0
        while True:
            pause = REASSERT_S
            if failures:
                pause = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures, 10))
            await self._woken(pause * (0.75 + random.random() / 2))
            failures = 0 if await self._acted() else failures + 1

    async def _woken(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass  # it is time all the same
        self._wake.clear()

    async def _acted(self) -> bool:
        """False when it has to be tried again soon."""
        sight = self._sight
        if sight.trouble:
            self._in_trouble(sight.trouble)
            return True
        if not sight.tip or not self._holder or self._holder != self._presence.session.id:
            return True  # no transaction would hold: the lock's watch wakes us when it is ours
        try:
            mark, wanted = await self._wanted(sight.tip)
        except MilkrunError as error:
            self._in_trouble(error.message)
            return False
        try:
            outcome = await self._publisher.publish(wanted, mark)
        except LostLock as error:
            self._log.warning("another gitsync has taken over; waiting", why=error.message)
            return False
        except MilkrunError:
            return False  # the registry is away: its watch and its session say so
        self._in_force(mark, wanted, outcome)
        return True

    async def _wanted(self, tip: Tip) -> tuple[CommitMark, Wanted]:
        """What the tip asks for; read from git once a commit."""
        if self._read is None or self._read[0].commit != tip.commit:
            generation = await self._source.generation(tip.commit)
            files = await self._source.files(tip.commit, *tree.PLACES)
            contents = await self._source.contents(tree.readable(files))
            mark = CommitMark(commit=tip.commit, generation=generation, time=tip.time)
            wanted = tree.wanted(files, contents, tip.commit)
            root = str(self._source.repository.folder)
            if places := secrets.places(wanted.services, root):
                tracked = await self._source.files(tip.commit, *places)
                texts = {path: contents.get(file.blob, b"") for path, file in files.items()}
                wanted = secrets.without_given_away(wanted, root, tracked, texts, tip.commit)
            self._read = (mark, wanted)
        return self._read

    def _in_force(self, mark: CommitMark, wanted: Wanted, outcome: Outcome) -> None:
        """The report says that the commit is in force, but for what was refused or held."""
        refused = sorted(
            [*wanted.refused, *outcome.refused], key=lambda refusal: (refusal.file, refusal.line)
        )
        report = msgspec.structs.replace(
            self._report,
            commit=mark.commit,
            generation=mark.generation,
            refused=refused,
            trouble=outcome.trouble,
        )
        if report == self._report:
            return
        for refusal in refused:
            if refusal not in self._report.refused:
                self._log.error(
                    "refused; what was there before stays",
                    file=refusal.file,
                    line=refusal.line,
                    why=refusal.reason,
                    commit=mark.commit[:10],
                )
        if mark.commit != self._report.commit and not outcome.troubles:
            self._log.info(
                "in force", commit=mark.commit[:10], generation=mark.generation, refused=len(refused)
            )
        self._publish(msgspec.structs.replace(report, synced_at=time.time()))

    def _in_trouble(self, trouble: str) -> None:
        """The report says what is wrong; everything published before stays."""
        if trouble != self._report.trouble:
            self._publish(msgspec.structs.replace(self._report, trouble=trouble))

    def _publish(self, report: SyncReport) -> None:
        if report.trouble != self._report.trouble:
            if report.trouble:
                self._log.error("trouble; what was published before stays", why=report.trouble)
            else:
                self._log.info("the trouble is over")
        self._report = report
        self._presence.publish(keys.SYNC_REPORT, report)


async def _source(
    repository: Path | str, branch: str, state_dir: Path, poll_s: float
) -> tuple[QuickReader, AsyncIterator[Sight], str]:
    """The repository on this machine to read from, its branch's sights, and its name for people."""
    if isinstance(repository, str) and is_remote(repository):
        folder = state_dir / f"mirror-{hashlib.sha256(repository.encode()).hexdigest()[:12]}"
        mirror = Mirror(repository, folder, branch)
        return QuickReader(await mirror.open()), mirrored_tips(mirror, poll_s), mirror.shown
    local = QuickReader(await Repository.open(Path(repository)))
    return local, local_tips(local, branch), str(local.repository.folder)


def _make(state_dir: Path) -> None:
    state_dir.mkdir(parents=True, exist_ok=True)
