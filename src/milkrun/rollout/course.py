"""Where a rollout can go from where it stands: on, back, to a halt, or to its end. Pure."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from milkrun.rollout import back
from milkrun.rollout.state import Cause, Entry, Intent, Paused, Phase, State
from milkrun.rollout.steps import Migrate, Step


class Course:
    """A rollout's state at a moment, with what was written into the journal on the way."""

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.entries: list[Entry] = []
        self._now = now

    def set(self, **changes: Any) -> None:
        """The state has these fields changed."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def note(self, said: str, kind: Literal["intent", "outcome", "fact"] = "fact") -> None:
        """The journal has a line more."""
        step = self.state.step
        self.entries.append(Entry(self._now, kind, step.name if step else "", said))

    def answer(self, intent: Intent, said: str, *, refused: bool) -> None:
        """The journal says to whoever wanted something what comes of it."""
        step = self.state.step
        name = step.name if step else ""
        self.entries.append(Entry(self._now, "fact", name, said, answers=intent.id, refused=refused))

    def remark(self, said: list[str]) -> None:
        """The journal and the receipt have these lines, each of them once."""
        for line in said:
            if line not in self.state.remarks:
                self.note(line)
                self.set(remarks=[*self.state.remarks, line])

    def advance(self, said: str) -> None:
        """The step is done; the next one begins."""
        self.note(said, "outcome")
        if isinstance(self.state.step, Migrate):  # it has limits of its own
            self.set(lost_s=self.state.lost_s + self._now - self.state.since)
        self.set(
            index=self.state.index + 1,
            since=self._now,
            commit=None,
            doing="",
            tries=0,
            waits_for=[],
            needs=0,
        )
        if self.state.step is None:
            self.end(Phase.DONE if self.state.phase is Phase.RUNNING else Phase.TAKEN_BACK)

    def pause(self, cause: Cause, reason: str) -> None:
        """It waits for a person."""
        self.note(f"paused: {reason}")
        self.set(paused=Paused(cause, reason, self._now), waits_for=[])
        if isinstance(self.state.step, Migrate):  # it stops here, and goes on where it was
            self.set(doing="", tries=0)

    def unpause(self) -> None:
        """It goes on; what was waited for counts on no limit."""
        paused = self.state.paused
        if paused:
            lost_s = max(0.0, self._now - paused.since)
            self.set(paused=None, since=self.state.since + lost_s, lost_s=self.state.lost_s + lost_s)

    def fail(self, reason: str) -> None:
        """What follows when it cannot or must not go on: taken back, held, or left to a person."""
        if _undoes(self.state.step) and self.state.phase is Phase.RUNNING:
            self.pause(Cause.FAILED, reason)
        elif self.state.phase is Phase.TAKING_BACK:
            self.note(f"a person is needed: {reason}")
            self.set(phase=Phase.NEEDS_PERSON, waits_for=[reason], doing="")
        elif self.state.plan.settings.on_failure == "hold":
            self.pause(Cause.FAILED, reason)
        else:
            self.take_back(reason)

    def take_back(self, reason: str) -> None:
        """The steps from now on are those back. From a schema that is half undone none leads back."""
        if _undoes(self.state.step) and self.state.phase is Phase.RUNNING:
            self.note(f"{reason}; what the undo has not taken away stays")
            self.end(Phase.LEFT)
            return
        self.note(f"taken back: {reason}")
        self.set(
            phase=Phase.TAKING_BACK,
            reason=self.state.reason or reason,
            steps=back.steps(self.state.plan, self.state.wish),
            index=0,
            since=self._now,
            commit=None,
            doing="",
            tries=0,
            paused=None,
            waits_for=[],
            needs=0,
        )

    def end(self, phase: Phase) -> None:
        """Nothing more happens."""
        self.note(f"ended: {phase.value}")
        self.set(phase=phase, ended=self._now, waits_for=[], paused=None, doing="")


def _undoes(step: Step | None) -> bool:
    return isinstance(step, Migrate) and step.phase == "undo"
