"""The environment's repository, as an engine sees it and writes to it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Self

import msgspec

from milkrun.errors import Conflict, InputRefused, MilkrunError, NotFound
from milkrun.model import CommitId, ServiceName, VersionName, Wish
from milkrun.repository import QuickReader, Repository, Sight, commit_file, commit_nothing, local_tips, push
from milkrun.rollout.facts import Head
from milkrun.rollout.migrations import files
from milkrun.rollout.migrations.files import Scripts
from milkrun.rollout.receipt import EPOCH, ROLLOUT
from milkrun.rollout.state import Commit
from milkrun.settings import deploy
from milkrun.settings import service as service_settings
from milkrun.settings.service import ServiceSettings
from milkrun.settings.text import did_you_mean

FILE_BYTES_AT_MOST = 1 << 20
SCRIPTS_KEPT = 16


class Source(msgspec.Struct, frozen=True):
    """What a plan is made from: the text of the service's deploy file and its settings, as a commit has them."""

    commit: CommitId
    base: bytes
    settings: ServiceSettings


class Git:
    """One branch of a repository on this machine. `follow` keeps an eye on it; `news` is set at the next new sight."""

    def __init__(self, repository: Repository, branch: str) -> None:
        self._reader = QuickReader(repository)
        self._branch = branch
        self._sight = Sight(None)
        self._heads: dict[ServiceName, Head] = {}
        self._scripts: dict[tuple[CommitId, ServiceName, VersionName], Scripts] = {}
        self.news = asyncio.Event()

    @classmethod
    async def open(cls, folder: Path, branch: str) -> Self:
        """The repository in `folder`. Raises NotFound when there is none."""
        return cls(await Repository.open(folder), branch)

    async def close(self) -> None:
        """No git process is left."""
        await self._reader.close()

    @property
    def trouble(self) -> str:
        """Why the branch cannot be read; empty when it can."""
        return self._sight.trouble

    async def follow(self) -> None:
        """Never returns."""
        async for sight in local_tips(self._reader, self._branch):
            self._sight = sight
            news, self.news = self.news, asyncio.Event()
            news.set()

    async def head(self, service: ServiceName) -> Head:
        """The last commit of this moment, with what the service's deploy file says in it: never an older one, or the
        engine would take its own commits for undone.
        """
        known = self._heads.get(service)
        try:
            tip = await self._reader.tip(self._branch)
            if known is None or known.commit != tip.commit or known.trouble:
                known = Head(
                    commit=tip.commit,
                    generation=await self._reader.generation(tip.commit),
                    text=(await self._read(tip.commit, f"deploy/{service}.json")).decode(errors="replace"),
                )
        except MilkrunError as error:
            return self._in_trouble(known, error.message)
        self._heads[service] = known
        return known

    @staticmethod
    def _in_trouble(known: Head | None, trouble: str) -> Head:
        if known is None:
            return Head(commit=CommitId(""), generation=0, text="", trouble=trouble)
        return Head(commit=known.commit, generation=known.generation, text=known.text, trouble=trouble)

    async def _read(self, commit: CommitId, path: str) -> bytes:
        """The file's content; empty when there is none. Raises InputRefused for a link, or for too much of it."""
        # By the processes that are open already: a commit starts some fifteen others.
        file = (await self._reader.files(commit, path.partition("/")[0])).get(path)
        if file is None:
            return b""
        if not file.plain:
            raise InputRefused("it is a link or a submodule, not a file", file=path)
        if file.size > FILE_BYTES_AT_MOST:
            raise InputRefused(f"it has {file.size} bytes; {FILE_BYTES_AT_MOST} is the most", file=path)
        return (await self._reader.contents([file]))[file.blob]

    async def files(self, service: ServiceName) -> Source:
        """The service's deploy file and its settings, as committed last. Raises NotFound for an unknown service."""
        head = (await self._reader.tip(self._branch)).commit
        file = f"services/{service}.toml"
        data = await self._read(head, file)
        if not data:
            known = [Path(path).stem for path in await self._reader.files(head, "services")]
            raise NotFound(
                f"git has no {file}, so nobody knows how to run {service}{did_you_mean(service, known)}",
                remedy=f"write {file} and commit it",
            )
        base = await self._read(head, f"deploy/{service}.json")
        return Source(head, base or b"{}\n", service_settings.load(data, file))

    async def scripts(self, commit: CommitId, service: ServiceName, version: VersionName) -> Scripts:
        """The version's migration as that commit has it. A commit says the same for ever: it is read once."""
        of = (commit, service, version)
        if of not in self._scripts:
            found = await files.read(self._reader.repository, commit, service, version)
            self._scripts = dict([*self._scripts.items()][-SCRIPTS_KEPT:]) | {of: found}
        return self._scripts[of]

    async def commit(
        self,
        service: ServiceName,
        before: Wish,
        wish: Wish,
        text: bytes,
        *,
        message: str,
        epoch: int,
        now: float,
        rollout: str = "",
    ) -> Commit:
        """The commit after which the deploy file says `wish`, written as `text`. With the id of a `rollout` it is one
        of that rollout's own, also when the file said so before.

        Raises InputRefused when it says neither that nor `before`: somebody else has written it. Raises Conflict when
        an engine of a later `epoch` has committed: the caller stood still meanwhile, and its lock is another's.
        """
        head = (await self._reader.tip(self._branch)).commit
        file = f"deploy/{service}.json"
        if await self._epoch(head, file) > epoch:
            raise Conflict(f"an engine later than epoch {epoch} has committed: this one acts no more")
        said = deploy.parse(await self._read(head, file) or b"{}", file)
        if said not in (before, wish):
            raise InputRefused("somebody else has changed it meanwhile", file=file)
        commit = head
        if said != wish:
            commit = await commit_file(
                self._reader.repository, self._branch, file, text, message, parent=head
            )
        elif rollout:
            commit = await self._of(rollout, head) or await commit_nothing(
                self._reader.repository, self._branch, message, parent=head
            )
        return Commit(commit, await self._reader.generation(commit), now)

    async def _of(self, rollout: str, head: CommitId) -> CommitId | None:
        """The last commit that the rollout made: its engine may have died before it could tell."""
        asked = ("--max-count=1", f"--grep=^{ROLLOUT}: {rollout}$", "--format=%H")
        said = (await self._reader.repository.git.run("log", *asked, head)).text.strip()
        return CommitId(said) if said else None

    async def _epoch(self, head: CommitId, file: str) -> int:
        """The epoch of the engine that committed the file last; 0 when none ever did."""
        asked = ("--max-count=1", f"--grep=^{EPOCH}: [0-9]", f"--format=%(trailers:key={EPOCH},valueonly)")
        said = (await self._reader.repository.git.run("log", *asked, head, "--", file)).text.strip()
        return int(said) if said.isascii() and said.isdigit() else 0

    async def push(self, url: str) -> None:
        """The remote's branch is at our commit. Raises MilkrunError when it cannot be, Conflict when it has others."""
        await push(self._reader.repository, url, self._branch)
