"""What `migrations/<service>/<version>/phases.toml` says: which phases a command or Alembic carries out. Pure."""

from __future__ import annotations

import re

import msgspec

from milkrun.settings import toml_lines
from milkrun.settings.migration import PHASES, Phase
from milkrun.settings.rollout import LIMIT_S_AT_MOST
from milkrun.settings.toml import Document

REVISED: tuple[Phase, ...] = ("expand", "contract", "undo")
"""The phases that change the schema, which is what Alembic's revisions do."""

_REVISIONS = re.compile(r"[A-Za-z0-9_]{1,64}:[A-Za-z0-9_]{1,64}")


class PhaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`command` is a program with its arguments, which has `timeout_s`; or Alembic goes by `revisions`, `FROM:TO`."""

    command: list[str] = []
    timeout_s: float = 3600.0
    revisions: str = ""


class PhasesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The phases that are not scripts. `alembic` is the path of Alembic's configuration in the repository."""

    alembic: str = "alembic.ini"
    expand: PhaseSettings = PhaseSettings()
    backfill: PhaseSettings = PhaseSettings()
    verify: PhaseSettings = PhaseSettings()
    contract: PhaseSettings = PhaseSettings()
    undo: PhaseSettings = PhaseSettings()

    @property
    def named(self) -> dict[Phase, PhaseSettings]:
        """Those of which it says anything, in their order."""
        found: dict[Phase, PhaseSettings] = {
            "expand": self.expand,
            "backfill": self.backfill,
            "verify": self.verify,
            "contract": self.contract,
            "undo": self.undo,
        }
        return {phase: each for phase, each in found.items() if each != PhaseSettings()}


class PhasesFile(msgspec.Struct, frozen=True):
    """What the file says, and the line of each phase in it."""

    settings: PhasesSettings
    lines: dict[Phase, int]


def load(data: bytes, file: str) -> PhasesFile:
    """What a `phases.toml` states; raises InputRefused with the file and the line."""
    document = Document(data, PhasesSettings, file)
    settings = document.value
    document.require(
        ("alembic",),
        not {"", ".", ".."} & {*settings.alembic.split("/")} and "\0" not in settings.alembic,
        "has to be a file's path in the repository, as `db/alembic.ini`",
    )
    named = settings.named
    document.require((), bool(named), f"names no phase: one of {', '.join(PHASES)}, as `[expand]`")
    for phase, each in named.items():
        _check(document, phase, each)
    lines = toml_lines.lines(data.decode())
    return PhasesFile(settings, {phase: toml_lines.nearest(lines, (phase,)) for phase in named})


def _check(document: Document[PhasesSettings], phase: Phase, each: PhaseSettings) -> None:
    at = (phase,)
    document.require(
        at, bool(each.command) != bool(each.revisions), "has to have `command` or `revisions`, one of both"
    )
    document.require(
        (*at, "command"),
        not each.command or (bool(each.command[0]) and not any("\0" in word for word in each.command)),
        'has to be a program with its arguments, as ["./migrate", "{phase}"]',
    )
    document.require(
        (*at, "timeout_s"),
        0.1 <= each.timeout_s <= LIMIT_S_AT_MOST,
        f"has to be 0.1 to {LIMIT_S_AT_MOST:.0f}, not {each.timeout_s:g}",
    )
    document.require(
        (*at, "revisions"),
        not each.revisions or phase in REVISED,
        f"Alembic changes schemas: write a {phase}.sql, or a `command`",
    )
    document.require(
        (*at, "revisions"),
        not each.revisions or bool(_REVISIONS.fullmatch(each.revisions)),
        "has to be FROM:TO, as `1a2b3c:4d5e6f`, or `base:1a2b3c` from the very beginning",
    )
