"""Whether a history is linearizable: Wing and Gong's search with Lowe's memory. Pure; knows no registry.

Sources: Wing, Gong, "Testing and verifying concurrent objects" (1993); Lowe, "Testing for linearizability" (2017).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec
from linearizability.operations import NEVER, Call

STEPS_AT_MOST = 2_000_000

State = TypeVar("State", bound=Hashable)


class Model(Protocol[State]):
    """One object that does one thing at a time."""

    def initial(self) -> State:
        """The state before any call."""

    def step(self, state: State, call: Call) -> State | None:
        """The state after the call; None when it cannot have answered so. A call without an answer may do either."""


class Verdict(StrEnum):
    LINEARIZABLE = "linearizable"
    BROKEN = "broken"
    UNDECIDED = "undecided"


class Finding(msgspec.Struct, frozen=True):
    """The verdict, and the longest order of calls that was possible: all of them, or those before the trouble."""

    verdict: Verdict
    order: tuple[Call, ...]
    steps: int


def check(history: Sequence[Call], model: Model[State], *, steps_at_most: int = STEPS_AT_MOST) -> Finding:
    """Whether the calls can be put in one order that the model allows and that no call's time contradicts.

    A call without an answer stands anywhere between its beginning and its end, or nowhere. The search keeps each
    pair of calls done and state that it was at, and never goes there again.
    """
    search = _Search(history)
    state, done, latest = model.initial(), 0, 0.0
    been: set[tuple[int, Hashable]] = {(done, state)}
    stack = [(state, done, latest, search.next(done, latest))]
    order: list[int] = []
    longest: tuple[int, ...] = ()
    steps = 0
    while done & search.all_known != search.all_known:
        if steps >= steps_at_most:
            return Finding(Verdict.UNDECIDED, search.calls_of(longest), steps)
        state, done, latest, choices = stack[-1]
        for place in choices:
            steps += 1
            call = search.calls[place]
            after = model.step(state, call)
            if after is None or (here := (done | 1 << place, after)) in been:
                continue
            been.add(here)
            done, latest = done | 1 << place, max(latest, call.began)
            order.append(place)
            stack.append((after, done, latest, search.next(done, latest)))
            break
        else:
            if len(order) > len(longest):
                longest = tuple(order)
            stack.pop()
            if not stack:
                return Finding(Verdict.BROKEN, search.calls_of(longest), steps)
            order.pop()
    return Finding(Verdict.LINEARIZABLE, search.calls_of(order), steps)


class _Search:
    """The calls, known ones first, and which of them may come next."""

    def __init__(self, history: Sequence[Call]) -> None:
        known = sorted((call for call in history if call.known), key=lambda call: call.began)
        unknown = sorted((call for call in history if not call.known), key=lambda call: call.began)
        self.calls = [*known, *unknown]
        self._known = len(known)
        self.all_known = (1 << len(known)) - 1

    def calls_of(self, places: Sequence[int]) -> tuple[Call, ...]:
        return tuple(self.calls[place] for place in places)

    def next(self, done: int, latest: float) -> Iterator[int]:
        """Those that began before any other open one ended: who ends first is tried first, unknown ones last.

        That order is mostly the true one: real histories take a fifth of the steps. An unknown call that was over
        before the `latest` beginning of those done can no longer come.
        """
        horizon = NEVER
        choices: list[int] = []
        first_open = (~done & (done + 1)).bit_length() - 1
        for place in range(first_open, self._known):
            call = self.calls[place]
            if call.began > horizon:
                break
            if not done >> place & 1:
                choices.append(place)
                horizon = min(horizon, call.ended)
        choices.sort(key=lambda place: self.calls[place].ended)
        for place in range(self._known, len(self.calls)):
            call = self.calls[place]
            if not done >> place & 1 and call.began <= horizon and call.ended >= latest:
                choices.append(place)
        return iter(choices)
