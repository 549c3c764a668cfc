"""Whether a pattern is found in a text, in time that grows with their lengths and no faster. Pure.

Python's own `re` takes exponential time for some patterns, which anyone who may read could send. This walks
all ways through the pattern at once (Thompson, "Regular Expression Search Algorithm", 1968), as Go's does.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from milkrun.registry.filters.expression import no
from milkrun.registry.filters.syntax import (
    Alternatives,
    Assertion,
    Place,
    Repeat,
    Row,
    Signs,
    Syntax,
    WrongPattern,
    is_word,
    read,
)

STATES_AT_MOST = 2000
STEPS_AT_MOST = 2_000_000
"""For one request, over everything that it filters: some tenths of a second."""


class Budget:
    """The steps that one filter may still take."""

    def __init__(self, steps: int = STEPS_AT_MOST) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Raises Refused when there are not so many left."""
        self._left -= steps
        if self._left < 0:
            raise no(
                "the filter takes too long over so many answers; ask for fewer, or use a simpler pattern"
            )


class _State(msgspec.Struct):
    """One place in the pattern: it reads a sign (`signs`), or goes on at once if `place` holds."""

    signs: Callable[[str], bool] | None = None
    place: Place | None = None
    to: list[int] = []


class Pattern:
    """A pattern in Go's syntax. Raises WrongPattern when it is none."""

    def __init__(self, text: str, budget: Budget) -> None:
        self._budget = budget
        self._states = [_State()]  # the first is the end
        self._first = self._build(read(text), 0)

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text."""
        now: set[int] = set()
        for at in range(len(text) + 1):
            self._enter(self._first, text, at, now)
            if 0 in now:
                return True
            if at == len(text):
                return False
            sign, coming = text[at], set[int]()
            for number in now:
                state = self._states[number]
                if state.signs is not None and state.signs(sign):
                    self._enter(state.to[0], text, at + 1, coming)
            now = coming
            if 0 in now:
                return True
        return False

    def _enter(self, number: int, text: str, at: int, into: set[int]) -> None:
        """The state and all that it leads to without reading are in the set."""
        waiting = [number]
        while waiting:
            each = waiting.pop()
            if each in into:
                continue
            into.add(each)
            self._budget.spend(1)
            state = self._states[each]
            if state.signs is None and (state.place is None or _holds(state.place, text, at)):
                waiting += state.to

    def _add(self, state: _State) -> int:
        if len(self._states) >= STATES_AT_MOST:
            raise WrongPattern("expression is too large")
        self._states.append(state)
        return len(self._states) - 1

    def _build(self, syntax: Syntax, then: int) -> int:
        """The state at which the syntax begins, if what follows it begins at `then`."""
        match syntax:
            case Signs():
                return self._add(_State(signs=syntax.holds, to=[then]))
            case Assertion():
                return self._add(_State(place=syntax.place, to=[then]))
            case Row():
                for each in reversed(syntax.of):
                    then = self._build(each, then)
                return then
            case Alternatives():
                return self._add(_State(to=[self._build(each, then) for each in syntax.of]))
            case Repeat():
                return self._repeat(syntax, then)

    def _repeat(self, syntax: Repeat, then: int) -> int:
        if syntax.most is None:
            loop = self._add(_State())
            self._states[loop].to = [self._build(syntax.of, loop), then]
            then = loop
        else:
            for _ in range(syntax.most - syntax.least):
                then = self._add(_State(to=[self._build(syntax.of, then), then]))
        for _ in range(syntax.least):
            then = self._build(syntax.of, then)
        return then


def _holds(place: Place, text: str, at: int) -> bool:
    match place:
        case Place.START:
            return at == 0
        case Place.END:
            return at == len(text)
        case Place.LINE_START:
            return at == 0 or text[at - 1] == "\n"
        case Place.LINE_END:
            return at == len(text) or text[at] == "\n"
        case Place.WORD_EDGE | Place.NO_WORD_EDGE:
            before = at > 0 and is_word(text[at - 1])
            after = at < len(text) and is_word(text[at])
            return (before != after) == (place is Place.WORD_EDGE)
