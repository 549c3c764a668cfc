"""A bare copy of one branch of a remote repository, which follows it forward only."""

from __future__ import annotations

import re
from pathlib import Path

from milkrun.errors import Conflict, InputRefused, MilkrunError, NotFound
from milkrun.model import CommitId, branch_name
from milkrun.repository.git import TOO_LARGE, Done, Git
from milkrun.repository.reading import Repository, Tip

FETCH_WAIT_S = 120.0
FETCH_BYTES_AT_MOST = 1 << 30
"""Of one fetch, which is one file while objects are checked: the first one has the whole history."""
PROTOCOLS = ("https", "ssh", "file")

_INCOMING = "refs/milkrun/incoming"
_SHORT_SSH = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!//)[^:].*")


class Mirror:
    """The branch `branch` of the repository at `url`, kept in the bare repository `folder`."""

    def __init__(self, url: str, folder: Path, branch: str) -> None:
        self._url = url
        self._protocol = protocol(url)
        self._folder = folder
        self._branch = branch_name(branch)
        self._too_large = ""  # the remote's tip that is, as far as it is known
        self._was_too_large = False

    @property
    def shown(self) -> str:
        """The URL without a password."""
        return shown_url(self._url)

    async def open(self) -> Repository:
        """The mirror's repository, made when it was not there; it may have no commit until a fetch."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return await Repository.open(self._folder)
        except NotFound:
            await Git(self._folder).run("init", "--quiet", "--bare", f"--initial-branch={self._branch}", ".")
            return await Repository.open(self._folder)

    async def fetch(self) -> Tip:
        """The remote branch's tip, which is the mirror's from now on.

        Raises Conflict, and the mirror stays, when the remote's history was rewritten; MilkrunError when the
        remote does not answer.
        """
        repository = await self.open()
        await self._download()
        new = CommitId((await repository.git.run("rev-parse", f"{_INCOMING}^{{commit}}")).text)
        old = await self._last(repository)
        if old and not await repository.is_ancestor(old.commit, new):
            raise Conflict(
                f"the history of {self._branch} at {self.shown} was rewritten: {new[:10]} does not follow "
                f"{old.commit[:10]}, which stays in force",
                remedy=f"commit on top of {old.commit[:10]} (`git revert` takes a change back)",
            )
        if not old or old.commit != new:
            expected = [old.commit] if old else []
            await repository.git.run("update-ref", f"refs/heads/{self._branch}", new, *expected)
        return await repository.tip(self._branch)

    async def last(self) -> Tip | None:
        """The tip as it was fetched last, None before the first fetch."""
        return await self._last(await self.open())

    async def _last(self, repository: Repository) -> Tip | None:
        try:
            return await repository.tip(self._branch)
        except NotFound:
            return None

    async def _download(self) -> None:
        refspec = f"+refs/heads/{self._branch}:{_INCOMING}"
        # What was refused is not downloaded again and again: only when the branch is somewhere else.
        tip = await self._remote_tip() if self._was_too_large else ""
        if tip and tip == self._too_large:
            raise self._refusal()
        try:
            await self._git(
                *("fetch", "--quiet", "--no-tags", "--", self._url, refspec),
                file_bytes_at_most=FETCH_BYTES_AT_MOST,
            )
        except MilkrunError as error:
            for left in self._folder.glob("objects/pack/tmp_*"):
                left.unlink(missing_ok=True)
            if TOO_LARGE in error.message:
                self._was_too_large, self._too_large = True, tip
                raise self._refusal() from error
            raise
        self._was_too_large = False

    async def _remote_tip(self) -> str:
        done = await self._git("ls-remote", "--", self._url, f"refs/heads/{self._branch}")
        return done.text.partition("\t")[0]

    async def _git(self, *arguments: str, file_bytes_at_most: int = 0) -> Done:
        git = Git(self._folder, protocols=(self._protocol,))
        try:
            return await git.run(*arguments, wait_s=FETCH_WAIT_S, file_bytes_at_most=file_bytes_at_most)
        except MilkrunError as error:
            raise MilkrunError(
                f"{self.shown} cannot be fetched: {error.message.replace(self._url, self.shown)}",
                remedy=f"try it by hand: git ls-remote {self.shown} {self._branch}",
            ) from error

    def _refusal(self) -> InputRefused:
        return InputRefused(
            f"{self._branch} at {self.shown} is not fetched: more than {FETCH_BYTES_AT_MOST >> 20} MiB are new there",
            remedy="keep large files out of the environment's repository, also out of its history",
        )


def is_remote(text: str) -> bool:
    """Whether the text names a repository by URL (or ssh's `host:path`) and not by a folder's path."""
    return "://" in text or bool(_SHORT_SSH.fullmatch(text))


def shown_url(url: str) -> str:
    """The URL as it may be logged: without a user's name and password."""
    if "://" not in url:
        return url
    return re.sub(r"//[^/@]*@", "//", url, count=1)


def protocol(url: str) -> str:
    """The one protocol that a fetch of the URL may use; a URL that is none of ours is refused."""
    if url.isprintable() and not url.startswith("-"):
        if _SHORT_SSH.fullmatch(url):
            return "ssh"
        scheme, separator, rest = url.partition("://")
        if separator and scheme in PROTOCOLS and rest and not rest.startswith("-"):
            return scheme
    raise InputRefused(
        f"{shown_url(url)[:200]!r} is not a repository that can be followed",
        remedy="use an https://, ssh:// or file:// URL, or host:path over ssh",
    )
