"""A version's migration, phase by phase, from a commit and never from the work tree."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import msgspec

from milkrun.errors import InputRefused
from milkrun.model import CommitId, ServiceName, VersionName
from milkrun.repository.reading import Repository
from milkrun.rollout.migrations import alembic, revisions, squawk
from milkrun.rollout.migrations.lint import Finding, lint
from milkrun.rollout.migrations.script import Directive, Script, parse
from milkrun.rollout.migrations.steps import Command, Step, steps
from milkrun.settings import phases
from milkrun.settings.migration import PHASES, Phase
from milkrun.settings.phases import PhasesFile
from milkrun.settings.text import FILE_BYTES_AT_MOST, did_you_mean, shown

OTHERS = "phases.toml"
"""The file that names the phases that are no scripts."""


class Scripts(msgspec.Struct, frozen=True):
    """The scripts by phase, with their bytes, and the commands of other phases. Without any, nothing is migrated."""

    by_phase: dict[Phase, Script] = {}
    texts: dict[Phase, bytes] = {}
    commands: dict[Phase, Command] = {}

    def of(self, phase: Phase) -> Script:
        """The script of a phase; an empty one when there is none."""
        return self.by_phase.get(phase) or Script(f"{phase}.sql", ())

    def steps(self, phase: Phase) -> list[Step]:
        """How a phase that changes the schema, or one that a command carries out, is carried out."""
        ending = self.syncs if phase in ("contract", "undo") else ()
        return steps(self.of(phase), phase, ending=ending, command=self.commands.get(phase))

    @property
    def phases(self) -> list[Phase]:
        """Those that have something to do, in their order."""
        return [phase for phase in PHASES if phase in self.texts or phase in self.commands]

    @property
    def digest(self) -> str:
        """Twelve letters that are others for other scripts and commands."""
        said = repr(sorted(self.texts.items()))
        if self.commands:
            said += repr([(phase, each.words, each.timeout_s) for phase, each in self.commands.items()])
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @property
    def syncs(self) -> list[Directive]:
        """The pairs of columns that the expansion keeps equal."""
        return self.of("expand").syncs


async def read(
    repository: Repository, commit: CommitId, service: ServiceName, version: VersionName
) -> Scripts:
    """The scripts of the service's version in that commit, and what else carries its phases out.

    Raises InputRefused for what is neither.
    """
    folder = f"migrations/{service}/{version}/"
    known: dict[str, Phase] = {f"{folder}{phase}.sql": phase for phase in PHASES}
    files = await repository.files(commit, folder)
    for path, file in files.items():
        if path not in known and path != f"{folder}{OTHERS}":
            near = did_you_mean(PurePosixPath(path).name, [OTHERS, *(f"{phase}.sql" for phase in PHASES)])
            raise InputRefused(f"no phase is called {shown(PurePosixPath(path).name)}{near}", file=path)
        if not file.plain or file.size > FILE_BYTES_AT_MOST:
            raise InputRefused(f"it has to be a file of {FILE_BYTES_AT_MOST} bytes at most", file=path)
    contents = await repository.contents(files.values())
    texts = {known[path]: contents[file.blob] for path, file in files.items() if path in known}
    found = {phase: parse(text, f"{folder}{phase}.sql") for phase, text in texts.items()}
    if others := files.get(f"{folder}{OTHERS}"):
        said = phases.load(contents[others.blob], f"{folder}{OTHERS}")
        for phase in texts:
            if phase in said.lines:
                raise InputRefused(
                    f"{phase} is in {phase}.sql already: a phase has one or the other",
                    file=f"{folder}{OTHERS}",
                    line=said.lines[phase],
                )
        return await _with_others(repository, commit, Scripts(found, texts), said, f"{folder}{OTHERS}")
    return Scripts(found, texts)


async def _with_others(
    repository: Repository, commit: CommitId, written: Scripts, said: PhasesFile, file: str
) -> Scripts:
    """The scripts with what `phases.toml` adds to them: commands as they are, revisions as Alembic writes them."""
    named = said.settings.named
    commands = {
        phase: Command(each.command, each.timeout_s, file, said.lines[phase])
        for phase, each in named.items()
        if each.command
    }
    found, texts = {**written.by_phase}, {**written.texts}
    wanted = {phase: each.revisions for phase, each in named.items() if each.revisions}
    if wanted:
        texts_of = await alembic.written(repository, commit, said.settings.alembic, wanted)
        for phase, text in texts_of.items():
            found[phase], texts[phase] = revisions.script(text, alembic.called(phase, wanted[phase]))
    return Scripts(found, texts, commands)


async def judged(scripts: Scripts) -> list[Finding]:
    """All that our rules and squawk refuse in the scripts, phase by phase."""
    found: list[Finding] = []
    for phase in PHASES:
        script = scripts.of(phase)
        found += lint(script, phase)
        # What takes away is squawk's concern as such; whether it may is the gates' to say.
        if script.statements and phase == "expand":
            found += await squawk.lint(script, scripts.texts[phase])
    filled = scripts.commands.get("backfill") or next(iter(scripts.of("backfill").statements), None)
    if filled and not (scripts.of("verify").statements or "verify" in scripts.commands):
        reason = "nobody would know whether the backfill is right"
        file = filled.file if isinstance(filled, Command) else scripts.of("backfill").file
        found.append(Finding("verify", file, filled.line, reason, "count what is wrong in verify.sql"))
    return found
