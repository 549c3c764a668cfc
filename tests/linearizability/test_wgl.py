"""The checker itself: histories whose verdict is known, and every small one against all orders there are."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st
from linearizability.operations import NEVER, Call, Get, Put, Read, Said
from linearizability.wgl import Verdict, check


class Register:
    """One number: Put writes its flags, Get reads it as its answer's index. Small, so that brute force can follow.

    A negative number cannot be written.
    """

    def initial(self) -> int:
        return 0

    def step(self, state: int, call: Call) -> int | None:
        if isinstance(call.operation, Put):
            return call.operation.flags if call.operation.flags >= 0 else None
        return state if call.answer in (None, Read(state, ())) else None


def write(value: int, began: float, ended: float = NEVER, *, known: bool = True) -> Call:
    """A write that ended, and whether somebody was told so."""
    return Call("c", Put("k", b"", value), began, ended, Said(yes=True) if known and ended != NEVER else None)


def read(value: int, began: float, ended: float = NEVER, *, known: bool = True) -> Call:
    return Call("c", Get("k"), began, ended, Read(value, ()) if known and ended != NEVER else None)


def verdict(*history: Call) -> Verdict:
    return check(history, Register()).verdict


GOOD = {
    "nothing": (),
    "one after the other": (write(1, 0, 1), read(1, 2, 3)),
    "a read during a write may see it": (write(1, 0, 9), read(1, 1, 2)),
    "or not": (write(1, 0, 9), read(0, 1, 2)),
    "first not and then yes": (write(1, 0, 9), read(0, 1, 2), read(1, 3, 4)),
    "two writes at once, in the other order": (write(1, 0, 9), write(2, 1, 2), read(1, 10, 11)),
    "an unknown write happened": (write(1, 0), read(1, 5, 6)),
    "an unknown write never happened": (write(1, 0), read(0, 5, 6)),
    "an unknown write happened late": (write(1, 0), read(0, 5, 6), read(1, 7, 8)),
    "of two unknown writes the earlier one came last": (
        write(1, 0),
        write(2, 1),
        read(2, 5, 6),
        read(1, 7, 8),
    ),
    "an unknown write that cannot have happened": (write(-1, 0), read(0, 5, 6)),
    "an unknown write happened before the end of who had it": (
        write(1, 0, 6, known=False), read(0, 1, 2), read(1, 3, 4),
    ),
    "or was seen later": (write(1, 0, 6, known=False), read(1, 8, 9)),
    "a read that nobody got an answer to": (write(1, 0, 1), read(0, 2)),
}  # fmt: skip
BAD = {
    "a lost write": (write(1, 0, 1), read(0, 2, 3)),
    "a value from nowhere": (read(1, 0, 1),),
    "a value from the future": (read(1, 0, 1), write(1, 2, 3)),
    "an unknown write before it began": (read(1, 0, 1), write(1, 2)),
    "first yes and then not": (write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)),
    "an unknown write happened twice": (write(1, 0), write(2, 1, 2), read(1, 3, 4), write(2, 5, 6), read(1, 7, 8)),
    "an unknown write happened after the end of who had it": (
        write(1, 0, 3, known=False), read(0, 5, 6), read(1, 7, 8),
    ),
    "or after a call that began later, whatever came in between": (
        write(1, 0, 4, known=False), write(2, 5, 9), write(3, 3, 10), read(1, 11, 12),
    ),
    "an overwritten value came back": (write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)),
    "two readers disagree about the order": (
        *(write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13)),
    ),
}  # fmt: skip


def test_good_histories_are_linearizable():
    assert {name: verdict(*history) for name, history in GOOD.items()} == dict.fromkeys(GOOD, "linearizable")


def test_bad_histories_are_not():
    assert {name: verdict(*history) for name, history in BAD.items()} == dict.fromkeys(BAD, "broken")


def test_a_finding_shows_how_far_an_order_goes():
    found = check([write(1, 0, 1), read(1, 2, 3), read(0, 4, 5)], Register())

    assert [call.began for call in found.order] == [0, 2]


def test_an_order_that_is_found_is_one_that_the_model_and_the_times_allow():
    history = GOOD["of two unknown writes the earlier one came last"]

    assert [call.began for call in check(history, Register()).order] == [1, 5, 0, 7]


def test_a_search_that_is_too_long_is_given_up_and_says_so():
    history = [*(write(number, 0, 99) for number in range(1, 12)), read(50, 100, 101)]

    assert check(history, Register(), steps_at_most=1000).verdict is Verdict.UNDECIDED
    assert check(history, Register()).verdict is Verdict.BROKEN


def test_a_long_history_takes_steps_in_proportion_to_its_length():
    # Ten clients who never stop at the same moment: 2,000 calls, and 20 writes that nobody got an answer to.
    calls = [write(number % 9, number, number + 10.5) for number in range(2000)]
    calls += [write(9, number * 100) for number in range(20)]

    assert check(calls, Register()).steps < 20_000


def brute_force(history: tuple[Call, ...]) -> bool:
    """All orders of the known calls and any of the unknown ones, one by one."""
    known = [call for call in history if call.known]
    unknown = [call for call in history if not call.known]
    for count in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *happened]):
                if all(a.began <= b.ended for a, b in itertools.combinations(order, 2)) and runs(order):
                    return True
    return False


def runs(order: tuple[Call, ...]) -> bool:
    model = Register()
    state: int | None = model.initial()
    for call in order:
        if state is not None:
            state = model.step(state, call)
    return state is not None


@st.composite
def histories(draw) -> tuple[Call, ...]:
    """Up to six calls at moments that never coincide, on three values: as many good ones as bad ones."""
    count = draw(st.integers(0, 6))
    moments = draw(st.permutations(range(2 * count)))
    found = []
    for number in range(count):
        began, ended = sorted(moments[2 * number : 2 * number + 2])
        make = draw(st.sampled_from((write, read)))
        end = draw(st.sampled_from((ended, ended, ended, NEVER)))
        found.append(
            make(draw(st.integers(0, 2)), began, end, known=draw(st.sampled_from((True, True, False))))
        )
    return tuple(found)


@given(histories())
@example(BAD["an unknown write happened twice"])
@example(GOOD["an unknown write happened late"])
def test_the_verdict_is_that_of_brute_force(history):
    assert verdict(*history) == ("linearizable" if brute_force(history) else "broken")
