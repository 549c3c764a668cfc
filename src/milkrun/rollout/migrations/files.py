"""A version's migration scripts, from a commit and never from the work tree."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import CommitId, ServiceName, VersionName
from milkrun.repository.reading import Repository
from milkrun.rollout.migrations import squawk
from milkrun.rollout.migrations.lint import Finding, lint
from milkrun.rollout.migrations.script import Directive, Script, parse
from milkrun.settings.migration import PHASES, Phase
from milkrun.settings.text import FILE_BYTES_AT_MOST, did_you_mean, shown


class Scripts(msgspec.Struct, frozen=True):
    """The scripts by phase, with their bytes. A version without any migrates nothing."""

    by_phase: dict[Phase, Script] = {}
    texts: dict[Phase, bytes] = {}

    def of(self, phase: Phase) -> Script:
        """The script of a phase; an empty one when there is none."""
        return self.by_phase.get(phase) or Script(f"{phase}.sql", ())

    @property
    def phases(self) -> list[Phase]:
        """Those that have something to do, in their order."""
        return [phase for phase in PHASES if phase in self.texts]

    @property
    def digest(self) -> str:
        """Twelve letters that are others for other scripts."""
        return hashlib.sha256(repr(sorted(self.texts.items())).encode()).hexdigest()[:12]

    @property
    def syncs(self) -> list[Directive]:
        """The pairs of columns that the expansion keeps equal."""
        return self.of("expand").syncs


async def read(
    repository: Repository, commit: CommitId, service: ServiceName, version: VersionName
) -> Scripts:
    """The scripts of the service's version in that commit. Raises InputRefused for what is no script."""
    folder = f"migrations/{service}/{version}/"
    known: dict[str, Phase] = {f"{folder}{phase}.sql": phase for phase in PHASES}
    files = await repository.files(commit, folder)
    for path, file in files.items():
        if path not in known:
            near = did_you_mean(PurePosixPath(path).name, [f"{phase}.sql" for phase in PHASES])
            raise InputRefused(f"no phase is called {shown(PurePosixPath(path).name)}{near}", file=path)
        if not file.plain or file.size > FILE_BYTES_AT_MOST:
            raise InputRefused(f"it has to be a file of {FILE_BYTES_AT_MOST} bytes at most", file=path)
    contents = await repository.contents(files.values())
    texts = {known[path]: contents[file.blob] for path, file in files.items()}
    return Scripts({phase: parse(text, f"{folder}{phase}.sql") for phase, text in texts.items()}, texts)


async def judged(scripts: Scripts) -> list[Finding]:
    """All that our rules and squawk refuse in the scripts, phase by phase."""
    found: list[Finding] = []
    for phase in PHASES:
        script = scripts.of(phase)
        found += lint(script, phase)
        # What takes away is squawk's concern as such; whether it may is the gates' to say.
        if script.statements and phase == "expand":
            found += await squawk.lint(script, scripts.texts[phase])
    filled = scripts.of("backfill").statements
    if filled and not scripts.of("verify").statements:
        reason = "nobody would know whether the backfill is right"
        file = scripts.of("backfill").file
        found.append(Finding("verify", file, filled[0].line, reason, "count what is wrong in verify.sql"))
    return found
