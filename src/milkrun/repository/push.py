"""Pushes a branch to a remote repository, forward only."""

from __future__ import annotations

from milkrun.errors import MilkrunError
from milkrun.model import branch_name
from milkrun.repository.git import Git
from milkrun.repository.mirror import protocol, shown_url
from milkrun.repository.reading import Repository

PUSH_WAIT_S = 60.0


async def push(repository: Repository, url: str, branch: str) -> None:
    """The branch at `url` is at our commit. Raises MilkrunError when it does not answer or has commits that we lack."""
    git = Git(repository.folder, protocols=(protocol(url),))
    ref = f"refs/heads/{branch_name(branch)}"
    try:
        await git.run("push", "--quiet", "--no-verify", "--", url, f"{ref}:{ref}", wait_s=PUSH_WAIT_S)
    except MilkrunError as error:
        shown = shown_url(url)
        raise MilkrunError(
            f"{shown} does not take them: {error.message.replace(url, shown)}",
            remedy=f"try it by hand: git push {shown} {branch}; if it has other commits, fetch and merge them first",
        ) from error
