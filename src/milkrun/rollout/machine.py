"""What a rollout does next: a function of how it stands, what is seen, and the time. Pure.

`decide` is asked again and again, whatever happened, and says at most one action at a time; the state that it returns
is stored before the action is done (the intent), and `outcome` makes the next one from what came of it. So an engine
may die anywhere: the next one finds an announced action, does it again (each can be done twice), and goes on.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from milkrun.model import Wish
from milkrun.rollout import asked, judging, moving, observed
from milkrun.rollout.actions import (
    Action,
    Committed,
    MakeCommit,
    NotNow,
    Outcome,
    RunHooks,
    RunMigration,
    RunSmoke,
    Tested,
)
from milkrun.rollout.analysis.verdict import Evidence
from milkrun.rollout.course import Course
from milkrun.rollout.facts import Facts
from milkrun.rollout.moving import Stage
from milkrun.rollout.state import Cause, Commit, Entry, Intent, Phase, State
from milkrun.rollout.steps import Analyse, Approve, Hook, Migrate, Move, Pause, Record, Smoke
from milkrun.settings.rollout import Phase as HookPhase

TRIES_AT_MOST = 10
"""So often an action whose outcome nobody told is done again: its engine may have died of it."""
AFTER_THE_FACT: tuple[HookPhase, ...] = ("done", "taken-back")
"""Hooks whose failure changes nothing any more."""


class Decision(msgspec.Struct, frozen=True):
    """The state from now on, what to do about it, and what to write into the journal."""

    state: State
    action: Action | None
    entries: list[Entry]


def decide(state: State, facts: Facts, intents: list[Intent], now: float, *, busy: bool = False) -> Decision:
    """The next thing. `busy`: the action that was announced is being done, and is not to be begun again."""
    turn = _Turn(state, facts, now, busy=busy)
    for intent in intents:
        turn.take(intent)
    action = turn.go()
    return Decision(turn.state, action, turn.entries)


def outcome(state: State, result: Outcome, now: float) -> Decision:
    """What came of the action that `decide` had announced."""
    turn = _Turn(state, None, now)
    turn.came_of_it(result)
    return Decision(turn.state, None, turn.entries)


class _Turn(Course):
    """One decision in the making."""

    def __init__(self, state: State, facts: Facts | None, now: float, *, busy: bool = False) -> None:
        super().__init__(state, now)
        self._busy = busy
        self._seen = facts

    @property
    def _facts(self) -> Facts:
        if self._seen is None:
            raise RuntimeError("an outcome is noted without looking")
        return self._seen

    # What somebody wants

    def take(self, intent: Intent) -> None:
        """The intent is followed, or the journal says why not."""
        self._at_head()
        wanted = asked.judge(self.state, intent)
        self.answer(intent, wanted.said, refused=wanted.refused)
        match wanted.then:
            case asked.Then.NOTHING:
                pass
            case asked.Then.PAUSE:
                self.pause(Cause.ASKED, wanted.said)
            case asked.Then.GO_ON:
                self._go_on()
            case asked.Then.NEXT:
                self.unpause()
                self.advance(wanted.said)
            case asked.Then.LAST:
                self.unpause()
                self.set(index=asked.promotion(self.state), since=self._now, commit=None, doing="", tries=0)
            case asked.Then.TAKE_BACK:
                self._take_over_edit()
                self.take_back(wanted.said)
            case asked.Then.LEAVE:
                self.end(Phase.LEFT)
            case _:
                assert_never(wanted.then)

    def _go_on(self) -> None:
        """`resume`: what stood in the way is taken as seen by a person."""
        paused = self.state.paused
        edited = self._take_over_edit()
        self.unpause()
        if edited:
            numbers = range(self.state.index + 1)
            moves = [number for number in numbers if isinstance(self.state.steps[number], Move)]
            self.set(index=moves[-1] if moves else self.state.index, commit=None, doing="", tries=0)
        if paused and paused.cause is not Cause.ASKED:
            self.set(
                since=self._now,
                tries=0,
                doing="",
                evidence=Evidence(),  # what was found bad is not found bad again for the same requests
                looked_at=0.0,
                restarts_before=self._facts.restarts(self.state.plan.version),
            )

    def _take_over_edit(self) -> bool:
        """Whether somebody else had edited the file: a person has seen it now, and what it says is where we start."""
        paused = self.state.paused
        if not paused or paused.cause is not Cause.FOREIGN_EDIT:
            return False
        self.set(wish=self._facts.head.wish(f"deploy/{self.state.service}.json") or Wish())
        return True

    # The turn

    def go(self) -> Action | None:
        """What to do now, after all that follows from what is seen was noted."""
        if self.state.over or self.state.phase is Phase.NEEDS_PERSON:
            return None
        self.set(ledger=observed.counted(self.state.ledger, self._facts.routers))
        self._at_head()
        if self._edited():
            return None
        if self.state.phase is Phase.RUNNING and not (
            self.state.paused and self.state.paused.cause is Cause.FAILED
        ):
            self._guard()  # also while it is paused by hand; what is bad goes back in this very turn
        return None if self.state.paused else self._step()

    def _at_head(self) -> None:
        """A commit that an engine made and then died of is ours."""
        step = self.state.step
        if not isinstance(step, Move) or self.state.commit or self._facts.head.trouble:
            return
        said = self._facts.head.wish(f"deploy/{self.state.service}.json")
        if said == self._wish(step) and said != self.state.wish:
            self.set(wish=said, commits=[*self.state.commits, self._facts.head.commit])

    def _edited(self) -> bool:
        """Whether somebody else wrote into the deploy file. What they wrote is never overwritten unasked."""
        head, paused = self._facts.head, self.state.paused
        if head.trouble:
            return False
        said = head.wish(f"deploy/{self.state.service}.json")
        if said == self.state.wish:
            if paused and paused.cause is Cause.FOREIGN_EDIT:
                self.note("the deploy file is again as this rollout wrote it")
                self.unpause()
            return False
        moved = bool(self.state.commits)
        if said == self.state.plan.wish and moved and self.state.phase is Phase.RUNNING:
            self.set(wish=said)
            self.take_back(f"somebody took its commits back in git ({head.commit[:10]})")
            return False
        if not (paused and paused.cause is Cause.FOREIGN_EDIT):
            self.pause(
                Cause.FOREIGN_EDIT,
                f"deploy/{self.state.service}.json was changed by somebody else ({head.commit[:10]})",
            )
        return True

    def _guard(self) -> None:
        """A bad version is on its way out, and so is a rollout whose time is over."""
        limit_s = self.state.plan.settings.total_limit_s
        judged = judging.judge(self.state, self._facts, self._now)
        self.state = judged.state
        if judged.bad:
            self.fail(judged.bad)
        elif not self.state.paused and self._spent_s() > limit_s:
            self.fail(f"it has taken more than {limit_s:g} s")

    def _spent_s(self) -> float:
        since = self.state.since if isinstance(self.state.step, Migrate) else self._now
        return since - self.state.started - self.state.lost_s

    def _step(self) -> Action | None:
        match step := self.state.step:
            case None:
                self.end(Phase.DONE if self.state.phase is Phase.RUNNING else Phase.TAKEN_BACK)
            case Move():
                return self._move(step)
            case Record():
                return self._record(step)
            case Smoke() | Hook() | Migrate():
                return self._act(step)
            case Analyse():
                self._analyse(step)
            case Pause():
                self._wait(step)
            case Approve():
                self._approval(step)
            case _:
                assert_never(step)
        return None

    def _act(self, step: Smoke | Hook | Migrate) -> Action | None:
        match step:
            case Smoke():
                return self._announce("smoke", RunSmoke())
            case Hook():
                return self._announce(step.name, RunHooks(step.phase))
            case Migrate():
                told = self._facts.progress
                if told and self.state.waits_for != [told]:
                    # It comes on: an engine may die of it later once more.
                    self.set(waits_for=[told], tries=1)
                return self._announce(step.name, RunMigration(step))

    def _announce(self, what: str, action: Action) -> Action | None:
        """The intent: it is stored before the action is done."""
        if self._busy and self.state.doing == what:
            return None
        if self.state.tries >= TRIES_AT_MOST:
            self.fail(f"{what} was begun {TRIES_AT_MOST} times, and its end was never seen")
            return None
        self.set(doing=what, tries=self.state.tries + 1)
        self.note(what if self.state.tries == 1 else f"{what}, once more", "intent")
        return action

    # Moves

    def _wish(self, move: Move) -> Wish:
        return Wish(versions=move.versions, maintenance=self.state.plan.wish.maintenance)

    def _move(self, move: Move) -> Action | None:
        state, head = self.state, self._facts.head
        commit = state.commit
        if commit is None:
            if head.trouble:
                self.set(waits_for=[f"git: {head.trouble}"])
                self._late(state.plan.settings.progress_limit_s)
                return None
            if self._wish(move) != state.wish:
                return self._announce("commit", MakeCommit(self._wish(move), move.name))
            commit = self._in_force()
        stands = moving.standing(self.state, move, commit, self._facts)
        if stands.served and not self.state.served_at:
            took_s = max(0.0, self._now - commit.at)
            self.set(served_at=self._now, slowest_s=max(self.state.slowest_s, took_s))
        self.set(waits_for=stands.waits_for)
        match stands.stage:
            case Stage.DONE:
                self.remark(moving.unseen(self.state, move, self._facts))
                self.advance(f"{commit.id[:10]} is served")
            case Stage.REFUSED:
                self.fail(f"gitsync refused the commit: {stands.waits_for[0]}")
            case Stage.INSTANCES:
                self._late(self.state.plan.settings.healthy_limit_s)
            case Stage.ROUTERS | Stage.DRAINING:
                self._late(self.state.plan.settings.progress_limit_s)
            case _:
                assert_never(stands.stage)
        return None

    def _in_force(self) -> Commit:
        """The branch's last commit is the move's. When this rollout did not make it, the file said so before."""
        head, state = self._facts.head, self.state
        if head.commit not in state.commits:
            self.set(found=[*state.found, head.commit])
        commit = Commit(head.commit, head.generation, self._now)
        self._committed(commit)
        return commit

    def _record(self, step: Record) -> Action | None:
        if self._facts.head.trouble:
            self.set(waits_for=[f"git: {self._facts.head.trouble}"])
            self._late(self.state.plan.settings.progress_limit_s)
            return None
        return self._announce("commit", MakeCommit(self.state.wish, step.name, always=True))

    def _committed(self, commit: Commit) -> None:
        commits = self.state.commits
        if not commits or commits[-1] != commit.id:
            commits = [*commits, commit.id]
        step = self.state.step
        wish = self._wish(step) if isinstance(step, Move) else self.state.wish
        self.set(commit=commit, commits=commits, wish=wish, doing="", tries=0, served_at=0.0)

    def _late(self, limit_s: float) -> None:
        if self._now - self.state.since > limit_s:
            self.fail(f"after {limit_s:g} s it still waits for {', '.join(self.state.waits_for)}")

    # Waits

    def _analyse(self, step: Analyse) -> None:
        """Its verdict, when there is one: a bad one was acted on before."""
        state, analysis = self.state, self.state.plan.settings.analysis
        passed_s = self._now - state.since
        verdict = judging.last(state)
        if judging.passed(state, step, self._now):
            self.advance(verdict.findings[0].said if verdict and verdict.findings else "it is not worse")
            return
        left_s = step.seconds - passed_s
        needs = verdict.needs if verdict else 0
        waits = (
            f"{step.seconds:g} s to pass" if left_s > 0 else f"about {needs} more requests to the new version"
        )
        self.set(waits_for=[waits], needs=needs)
        if -left_s > analysis.extend_s:
            reason = f"no verdict after {passed_s:.0f} s: {needs} more requests would be needed"
            if analysis.inconclusive == "abort":
                self.fail(reason)
            else:
                self.pause(Cause.NO_VERDICT, reason)

    def _wait(self, step: Pause) -> None:
        left_s = step.seconds - (self._now - self.state.since)
        if not step.seconds:
            self.set(waits_for=[f"`milkrun rollout resume {self.state.service}`"])
        elif left_s > 0:
            self.set(waits_for=[f"{step.seconds:g} s to pass"])
        else:
            self.advance(f"{step.seconds:g} s have passed")

    def _approval(self, step: Approve) -> None:
        self.set(waits_for=[f"`milkrun rollout approve {self.state.service}`, or `reject`"])
        if step.limit_s and self._now - self.state.since > step.limit_s:
            self.take_back(f"nobody approved it within {step.limit_s:g} s")

    # What came of an action

    def came_of_it(self, result: Outcome) -> None:
        """Noted; what follows is for the next turn."""
        match result:
            case Committed():
                self._committed(result.commit)
                if isinstance(self.state.step, Record):
                    self.advance(f"committed {result.commit.id[:10]}")
                else:
                    self.note(f"committed {result.commit.id[:10]}", "outcome")
            case NotNow():
                self.set(doing="", tries=0, waits_for=[result.why])
                self.note(f"not now: {result.why}", "outcome")
            case Tested():
                step = self.state.step
                told_only = isinstance(step, Hook) and step.phase in AFTER_THE_FACT
                self.set(doing="", tries=0)
                if isinstance(step, Migrate) and result.good:
                    self.set(migrated=[*self.state.migrated, f"{step.name}: {result.said}"])
                if result.good or told_only:
                    self.advance(result.said)
                else:
                    self.note(result.said, "outcome")
                    self.fail(result.said)
            case _:
                assert_never(result)
