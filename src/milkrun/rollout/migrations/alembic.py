"""Has Alembic write its revisions as SQL, from a commit's files and without any database.

`env.py` and the revisions are programs of the repository's, as hooks are. They are run in a folder of their own, with
none of the engine's variables: neither a token nor a database's address is among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import sys
import tempfile
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from milkrun.errors import InputRefused, MilkrunError, PartMissing, TimedOut
from milkrun.model import CommitId
from milkrun.repository.reading import Repository
from milkrun.settings.migration import Phase
from milkrun.settings.text import FILE_BYTES_AT_MOST

LIMIT_S = 60.0
FOLDER_BYTES_AT_MOST = 64 << 20
FOLDER_FILES_AT_MOST = 10_000

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
_ODD = {"", ".", "..", ".git"}
"""Names in a path that git itself would not have."""
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_FAILED = re.compile(r"^FAILED: (.+)$", re.MULTILINE)
_REMEDY = (
    "nothing can be asked of the database while it is written: change rows in a backfill.sql, or let a `command` carry"
    " the phase out"
)


def called(phase: Phase, revisions: str) -> str:
    """What a person types to see the same text."""
    return f"alembic {_verb(phase)} {revisions} --sql"


async def written(
    repository: Repository, commit: CommitId, config: str, wanted: Mapping[Phase, str]
) -> dict[Phase, bytes]:
    """The SQL of each phase, which goes through its revisions `FROM:TO`.

    Alembic sees the folder of its configuration as the commit has it, and nothing else of the repository. Raises
    InputRefused for what it cannot write, with the file and the line.
    """
    if importlib.util.find_spec("alembic") is None:
        raise PartMissing("revisions need Alembic", remedy="pip install 'milkrun[postgres]'")
    with tempfile.TemporaryDirectory(prefix="milkrun-alembic-") as made:
        home = Path(made).resolve()
        await _export(repository, commit, config, home)
        return {phase: await _written(home, config, phase, between) for phase, between in wanted.items()}


async def _export(repository: Repository, commit: CommitId, config: str, home: Path) -> None:
    folder = PurePosixPath(config).parent
    under = () if folder == PurePosixPath() else (f"{folder}/",)
    found = await repository.files(commit, *under)
    files = {path: file for path, file in found.items() if file.plain and not _ODD & {*path.split("/")}}
    if config not in files:
        raise InputRefused("the commit has no such file, which phases.toml names for Alembic", file=config)
    if len(files) > FOLDER_FILES_AT_MOST or sum(file.size for file in files.values()) > FOLDER_BYTES_AT_MOST:
        raise InputRefused(
            f"its folder has more than {FOLDER_FILES_AT_MOST:,} files or {FOLDER_BYTES_AT_MOST >> 20} MiB",
            file=config,
            remedy="move it into a folder of its own, with env.py and the revisions",
        )
    contents = await repository.contents(files.values())
    try:
        await asyncio.to_thread(_write, home, {path: contents[file.blob] for path, file in files.items()})
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MilkrunError(f"Alembic's files cannot be written to {home.parent}: {reason}") from None


def _write(home: Path, texts: Mapping[str, bytes]) -> None:
    for path, text in texts.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)


async def _written(home: Path, config: str, phase: Phase, revisions: str) -> bytes:
    # -P: a folder `alembic` beside the configuration is not the package.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "alembic"),
        *("-c", PurePosixPath(config).name, _verb(phase), revisions, "--sql"),
        cwd=(home / config).parent,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=_environment(),
        start_new_session=True,
    )
    assert process.stdout  # noqa: S101 - both were asked for
    assert process.stderr  # noqa: S101
    try:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            out = tasks.create_task(_read(process.stdout))
            said = tasks.create_task(_read(process.stderr))
        async with asyncio.timeout(LIMIT_S):
            status = await process.wait()
    except TimeoutError:
        raise TimedOut(
            f"{called(phase, revisions)} took more than {LIMIT_S:g} s and was stopped", remedy=_REMEDY
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if status:
        raise _refused(home, called(phase, revisions), out.result(), said.result())
    return out.result()


async def _read(stream: StreamReader) -> bytes:
    """What comes, up to more than a script may have; the rest is read and forgotten."""
    kept = b""
    while chunk := await stream.read(1 << 16):
        if len(kept) <= FILE_BYTES_AT_MOST:
            kept += chunk
    return kept


def _refused(home: Path, what: str, out: bytes, said: bytes) -> InputRefused:
    """Why, with the line of the repository's own file that it came from."""
    printed, words = out.decode(errors="replace"), said.decode(errors="replace")
    frames = [(path, int(line)) for path, line in _FRAME.findall(words) if path.startswith(f"{home}/")]
    path, line = frames[-1] if frames else ("", 0)
    failed = _FAILED.findall(printed)
    lines = [each.strip() for each in words.splitlines() if each.strip()]
    why = failed[-1] if failed else lines[-1] if lines else "it says nothing"
    return InputRefused(
        f"{what}: {why.replace(f'{home}/', '')[:300]}",
        file=path.removeprefix(f"{home}/"),
        line=line,
        remedy="" if failed else _REMEDY,
    )


def _verb(phase: Phase) -> str:
    return "downgrade" if phase == "undo" else "upgrade"


def _environment() -> dict[str, str]:
    """The variable has a URL that says only that it is PostgreSQL, for an env.py that takes its own from there."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"MILKRUN_DATABASE_URL": "postgresql://", "PYTHONDONTWRITEBYTECODE": "1"}
