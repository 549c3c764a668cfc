"""Whether a history of a registry is one that a registry may have: split into independent parts, each one checked.

A part is what hangs together: keys of one transaction or tree, and the keys that one session held. A history is
linearizable when each part is (Herlihy, Wing, "Linearizability", 1990: locality).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from linearizability import operations as ops
from linearizability.model import RegistryModel
from linearizability.operations import Call, Entry, History
from linearizability.wgl import STEPS_AT_MOST, Finding, Verdict, check


class Trouble(msgspec.Struct, frozen=True):
    """Why a history is none of a registry, and the calls that show it, in the order of their beginning."""

    why: str
    calls: tuple[Call, ...]

    def __str__(self) -> str:
        return "\n".join([self.why, *map(line, self.calls)])


def judge(history: History, *, steps_at_most: int = STEPS_AT_MOST) -> Iterator[Trouble]:
    """All that is wrong with the history; nothing when it is linearizable."""
    behaviors = {
        call.operation.session: call.operation.behavior
        for call in history
        if isinstance(call.operation, ops.CreateSession) and call.known
    }
    stamps, troubles = stamped(history)
    yield from troubles
    for part in parts(history):
        names = {name for call in part for name in touched(call.operation)}
        keys = [name for name in names if not name.startswith(_SESSION) and not name.endswith("/")]
        finding = check(part, RegistryModel(keys, behaviors, stamps), steps_at_most=steps_at_most)
        if finding.verdict is not Verdict.LINEARIZABLE:
            yield _told(part, finding)


def stamped(history: History) -> tuple[dict[tuple[str, bytes, str], int], list[Trouble]]:
    """The index of each state of a key that an answer showed, and the troubles: two for one, or one for two.

    Each write of a history has a value of its own, so that value and holder name a state.
    """
    stamps: dict[tuple[str, bytes, str], int] = {}
    states: dict[tuple[str, int], tuple[bytes, str]] = {}
    troubles: list[Trouble] = []
    for call in history:
        for value, entry in shown(call):
            index = entry.modify_index
            was = stamps.setdefault((entry.key, value, entry.session), index)
            if was != index:
                why = f"{entry.key} has the index {index} and {was} with nothing written in between"
                troubles.append(Trouble(why, (call,)))
            state = states.setdefault((entry.key, index), (value, entry.session))
            if state != (value, entry.session):
                troubles.append(
                    Trouble(f"two states of {entry.key} have the index {index}: {state}", (call,))
                )
            if not 0 < entry.create_index <= index:
                troubles.append(Trouble(f"{entry.key} was created after it was written", (call,)))
    return stamps, troubles


def shown(call: Call) -> Iterator[tuple[bytes, Entry]]:
    """The entries that the answer showed whole, or of which the call knows the value that it wrote."""
    match call.operation, call.answer:
        case _, ops.Read(_, entries):
            yield from ((entry.value or b"", entry) for entry in entries)
        case ops.Txn(steps), ops.Done(entries):
            rest = iter(entries)
            for step in steps:
                match step:
                    case ops.Put() | ops.Cas() | ops.Acquire() | ops.Release():
                        yield from ((step.value, entry) for entry in _first(rest))
                    case ops.Get():
                        yield from ((entry.value or b"", entry) for entry in _first(rest))
                    case ops.CheckIndex() | ops.CheckSession():
                        list(_first(rest))
                    case ops.Tree():
                        yield from ((entry.value or b"", entry) for entry in rest)


def _first(entries: Iterator[Entry]) -> Iterator[Entry]:
    for entry in entries:
        yield entry
        return


_SESSION = "session "


def touched(operation: ops.Operation) -> tuple[str, ...]:
    """The keys, prefixes and sessions that the operation hangs together."""
    match operation:
        case ops.Txn(steps):
            return tuple(name for step in steps for name in touched(step))
        case ops.Acquire(key, _, session) | ops.Release(key, _, session) | ops.CheckSession(key, session):
            return (key, _SESSION + session) if session else (key,)
        case ops.CreateSession(_, session) | ops.EndSession(session) | ops.AskSession(session):
            return (_SESSION + session,)
        case ops.Tree(prefix) | ops.DeleteTree(prefix):
            return (prefix,)
        case _:
            return (operation.key,)


def parts(history: History) -> list[list[Call]]:
    """The calls that hang together; what nobody can know anything of (unanswered reads) is in none."""
    calls = [call for call in history if call.known or not _leaves_nothing(call.operation)]
    names = {name for call in calls for name in touched(call.operation)}
    leader = {name: name for name in names}

    def lead(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    def join(together: Iterable[str]) -> None:
        first, *others = [lead(name) for name in together] or [""]
        for other in others:
            leader[lead(other)] = lead(first)

    for call in calls:
        join(touched(call.operation))
    for prefix in [name for name in names if name.endswith("/")]:
        join([prefix, *(name for name in names if name.startswith(prefix))])
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(lead(touched(call.operation)[0]), []).append(call)
    return list(found.values())


def _leaves_nothing(operation: ops.Operation) -> bool:
    """Whether nothing is there or gone by it. A session whose id nobody was told might as well not be."""
    if isinstance(operation, ops.Txn):
        return all(isinstance(step, ops.READS) for step in operation.steps)
    return isinstance(operation, (*ops.READS, ops.CreateSession))


_TOLD_AT_MOST = 40


def _told(part: list[Call], finding: Finding) -> Trouble:
    """The calls around the one before which no order goes on."""
    done = {id(call) for call in finding.order}
    stuck = [call for call in part if id(call) not in done and call.known]
    first = min((call.ended for call in stuck), default=0.0)
    around = sorted((call for call in part if call.began <= first), key=lambda call: call.began)
    why = f"{finding.verdict} after {len(finding.order)} of {len(part)} calls and {finding.steps} steps"
    return Trouble(why, tuple(around[-_TOLD_AT_MOST:]))


def line(call: Call) -> str:
    """A call as one line for a person."""
    return f"{call.began:>8}..{call.ended:<8} {call.client:<12} {call.operation} -> {call.answer}"
