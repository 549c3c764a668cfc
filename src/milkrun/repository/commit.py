"""Commits one file without a checkout: the branch moves at once or not at all.

In a work tree that has the branch checked out, the index and the file on disk move along, as if the commit
had been made there. Order: the branch is locked at its old value, the file and the index follow, the branch
moves. Killed in between, the change stands there uncommitted for everybody to see; in the other order the
next `git commit -a` would silently take it back.
"""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from milkrun.errors import Conflict, InputRefused
from milkrun.model import CommitId, branch_name
from milkrun.repository import branch_lock, work_tree
from milkrun.repository.git import Git
from milkrun.repository.reading import Repository

_FALLBACK_NAME = "milkrun"
_FALLBACK_EMAIL = "milkrun@localhost"


async def commit_file(
    repository: Repository, branch: str, path: str, data: bytes, message: str, *, parent: CommitId
) -> CommitId:
    """The commit after which `path` holds `data` on the branch; `parent` itself when it did before.

    Raises Conflict when the branch is no longer at `parent`, or when the file has changes in the work tree
    that are not committed: then nothing was changed.
    """
    old = (await repository.files(parent, _plain_path(path))).get(path)
    if old and not old.plain:
        raise InputRefused("it is a link or a submodule, not a file", file=path)
    if await repository.head(branch) != parent:
        raise Conflict(
            f"{branch} moved on from {parent[:10]} meanwhile; nothing was changed", remedy="try again"
        )
    blob = (await repository.git.run("hash-object", "-w", "--stdin", stdin=data)).text
    if old and old.blob == blob:
        return parent
    mode = old.mode if old else "100644"
    entry = f"{mode},{blob},{path}"
    identity = await _identity(repository.git)
    with tempfile.TemporaryDirectory(prefix="milkrun-", dir=repository.git_dir) as scratch:
        variables = identity | {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        commit = await _commit(repository.git, variables, entry, message, parent)
        note = f"commit: {message.partition(chr(10))[0]}"
        async with branch_lock.held(
            repository.git, branch, old=parent, new=commit, note=note, identity=identity
        ) as lock:
            if await work_tree.has_branch(repository, branch):
                async with work_tree.index_locked(repository):
                    await work_tree.follow(repository, Path(scratch) / "next", entry, path, data)
            await lock.move()
    return commit


async def commit_nothing(repository: Repository, branch: str, message: str, *, parent: CommitId) -> CommitId:
    """A commit that says something and changes no file. Raises Conflict when the branch is no longer at `parent`."""
    identity = await _identity(repository.git)
    arguments = ("commit-tree", "-p", parent, "-F", "-", f"{parent}^{{tree}}")
    done = await repository.git.run(*arguments, stdin=message.encode(), variables=identity)
    commit = CommitId(done.text)
    note = f"commit: {message.partition(chr(10))[0]}"
    async with branch_lock.held(
        repository.git, branch, old=parent, new=commit, note=note, identity=identity
    ) as lock:
        await lock.move()
    return commit


async def create(folder: Path, branch: str, message: str) -> CommitId:
    """The first commit of a new repository in `folder`, with all that is there and not ignored."""
    git = Git(folder)
    await git.run("init", "--quiet", f"--initial-branch={branch_name(branch)}", ".")
    await git.run("add", "--all", "--", ".")
    tree = (await git.run("write-tree")).text
    identity = await _identity(git)
    done = await git.run("commit-tree", "-F", "-", tree, stdin=message.encode(), variables=identity)
    note = f"commit (initial): {message.partition(chr(10))[0]}"
    nothing = "0" * len(done.text)
    await git.run("update-ref", "-m", note, f"refs/heads/{branch}", done.text, nothing, variables=identity)
    return CommitId(done.text)


async def _commit(
    git: Git, variables: dict[str, str], entry: str, message: str, parent: CommitId
) -> CommitId:
    await git.run("read-tree", parent, variables=variables)
    await git.run("update-index", "--add", "--cacheinfo", entry, variables=variables)
    tree = (await git.run("write-tree", variables=variables)).text
    arguments = ("commit-tree", "-p", parent, "-F", "-", tree)
    return CommitId((await git.run(*arguments, stdin=message.encode(), variables=variables)).text)


async def _identity(git: Git) -> dict[str, str]:
    """Who commits: the repository's user, or milkrun itself where no name or no address is set."""
    name = (await git.run("config", "user.name", accept=(0, 1))).text.strip()
    email = (await git.run("config", "user.email", accept=(0, 1))).text.strip()
    if not name or not email:
        name, email = _FALLBACK_NAME, _FALLBACK_EMAIL
    return {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", name), ("EMAIL", email))
    }


def _plain_path(path: str) -> str:
    """The path when it is a plain one inside a repository; anything else is refused."""
    parts = path.split("/")
    hidden = any(part in ("", ".", "..") or part.lower().startswith(".git") for part in parts)
    if hidden or not path.isprintable() or "\\" in path or str(PurePosixPath(path)) != path:
        raise InputRefused(f"{path[:80]!r} is not a path that can be committed")
    return path
