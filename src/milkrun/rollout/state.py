"""A rollout as it stands: everything that another engine needs to go on with it. Values only.

It is kept in the registry under `milkrun/rollouts/<service>/state`, written before each action and after it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from milkrun.model import CommitId, RouterId, ServiceName, VersionName, Wish
from milkrun.rollout.analysis.verdict import Evidence, Verdict
from milkrun.rollout.plan import Kind, Plan
from milkrun.rollout.steps import Step

Verb = Literal["start", "pause", "resume", "promote", "approve", "reject", "abort", "retry"]
VERDICTS_KEPT = 20


class Phase(StrEnum):
    """Where a rollout is. NEEDS_PERSON waits for `retry` or `abort`; DONE, TAKEN_BACK and LEFT are its ends."""

    RUNNING = "running"
    TAKING_BACK = "taking-back"
    DONE = "done"
    TAKEN_BACK = "taken-back"
    NEEDS_PERSON = "needs-person"
    LEFT = "left"
    """Somebody said that it is to be left as it was: neither done nor taken back."""


ENDED = (Phase.DONE, Phase.TAKEN_BACK, Phase.LEFT)


class Cause(StrEnum):
    """Why a rollout waits for a person."""

    ASKED = "asked"
    """Somebody said `pause`."""
    FOREIGN_EDIT = "foreign-edit"
    """The deploy file says what no step of this rollout wrote."""
    FAILED = "failed"
    """The new version is bad, and the settings say that it is not taken back by itself."""
    NO_VERDICT = "no-verdict"
    """There was too little data, or too much of a doubt, to say that the new version is good."""


class Paused(msgspec.Struct, frozen=True):
    """It waits, since a moment in seconds since 1970."""

    cause: Cause
    reason: str
    since: float


class Commit(msgspec.Struct, frozen=True):
    """What a move became in git. `generation` counts the commits up to it."""

    id: CommitId
    generation: int
    at: float


class Said(msgspec.Struct, frozen=True):
    """A verdict, and the step in which it was given."""

    step: str
    at: float
    verdict: Verdict


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that a version had during the rollout, and how many of them failed."""

    requests: int = 0
    failures: int = 0


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What the routers counted since the rollout began: `last` is what each said last, by router and version."""

    last: dict[RouterId, dict[VersionName, Counted]] = {}
    total: dict[VersionName, Counted] = {}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout.

    `steps` are the plan's while it runs, and those of taking it back after that; `index` is the present one, which
    began at `since`. `doing` names the action that was announced and whose outcome is not known; `tries` how often it
    was announced. `wish` is what the deploy file says as far as this rollout wrote it; `commit` is the present move's.
    `found` are those of the `commits` that somebody else had made: the file said so before. `served_at` is when all
    live routers served the present shares: what is compared begins there. `reason` says why it is taken back.
    `remarks` are what a person should know at its end. `lost_s` is how long it waited for people or for the database:
    that counts on no limit. `migrated` are the phases of migrations that are done, with what they said.
    """

    plan: Plan
    by: str
    started: float
    since: float
    phase: Phase = Phase.RUNNING
    steps: list[Step]
    index: int = 0
    doing: str = ""
    tries: int = 0
    wish: Wish
    commit: Commit | None = None
    commits: list[CommitId] = []
    found: list[CommitId] = []
    remarks: list[str] = []
    lost_s: float = 0.0
    migrated: list[str] = []
    served_at: float = 0.0
    slowest_s: float = 0.0
    paused: Paused | None = None
    reason: str = ""
    waits_for: list[str] = []
    needs: int = 0
    looked_at: float = 0.0
    evidence: Evidence = Evidence()
    verdicts: list[Said] = []
    ledger: Ledger = Ledger()
    restarts_before: int = 0
    epoch: int = 0
    ended: float = 0.0

    @property
    def service(self) -> ServiceName:
        """Whose rollout it is."""
        return self.plan.service

    @property
    def step(self) -> Step | None:
        """The present step; None after the last one."""
        return self.steps[self.index] if self.index < len(self.steps) else None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.phase in ENDED


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a service's rollout. Commands only write these down; the engine does it.

    `version`, `strategy`, `replicas` and `digest` are of `start`, whose `rollout` is the one to begin; any other verb
    is meant for the one it names, and for no other. `full` is of `promote` and `abort`.
    """

    id: str
    verb: Verb
    by: str
    at: float
    rollout: str = ""
    reason: str = ""
    version: str = ""
    strategy: Kind | None = None
    replicas: int | None = None
    digest: str = ""
    full: bool = False


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the journal. An `intent` stands before the action, its `outcome` after it; a `fact` was seen.

    `answers` is the id of the wish that the line answers, if it is one; `refused` says that nothing comes of it.
    """

    at: float
    kind: Literal["intent", "outcome", "fact"]
    step: str
    said: str
    answers: str = ""
    refused: bool = False
