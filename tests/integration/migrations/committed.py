"""A repository whose one commit has what a test wants in it, and the migration that a commit brings."""

from __future__ import annotations

import subprocess

from milkrun.repository.reading import Repository
from milkrun.rollout.migrations.files import read

HOME = "migrations/ledger/2"


def git(folder, *arguments) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def committed(folder, files) -> str:
    """The commit whose files these are, by their paths."""
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "a migration")
    return git(folder, "rev-parse", "HEAD")


async def migration(folder, files):
    """What version 2 of the ledger brings."""
    made = committed(folder, files)
    return await read(await Repository.open(folder), made, "ledger", "2")
