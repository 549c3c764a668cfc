from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.unfolded import Unfolded

KEYS = st.integers(0, 9).map(lambda number: ("kv", str(number)))
COMMITS = st.lists(st.dictionaries(KEYS, st.none() | st.binary(max_size=30), min_size=1), max_size=20)
BUDGETS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 60)), max_size=20)


def laid_over(rows, commits):
    """What a restart makes of the rows on the disk and the log's records."""
    found = dict(rows)
    for commit in commits:
        found.update(commit)
    return {row: body for row, body in found.items() if body is not None}


def fold(unfolded, rows, log, budget):
    step = unfolded.next(*budget)
    for row, body in step.rows:
        if body is None:
            rows.pop(row, None)
        else:
            rows[row] = body
    for place in [place for place in log if place <= step.emptied]:
        del log[place]
    unfolded.done(step)
    return step


@given(commits=COMMITS, budgets=BUDGETS)
def test_whatever_is_folded_in_between_a_restart_finds_all_that_was_committed_and_nothing_else(
    commits, budgets
):
    unfolded, rows, log = Unfolded(), {}, {}
    steps = iter(budgets)
    for place, commit in enumerate(commits, start=1):
        unfolded.add(place, commit, 10)
        log[place] = commit
        if budget := next(steps, None):
            fold(unfolded, rows, log, budget)
        wanted = laid_over({}, commits[:place])
        assert laid_over(rows, log.values()) == wanted
        assert laid_over(rows, [dict(unfolded.items())]) == wanted
        assert unfolded.size == 10 * len(log)
    while log:
        fold(unfolded, rows, log, (3, 1000))
    assert (rows, len(unfolded)) == (laid_over({}, commits), 0)


def test_a_step_is_as_small_as_it_is_asked_to_be_and_one_row_at_least():
    unfolded, rows, log = Unfolded(), {}, {}
    log[1] = {("kv", str(number)): b"x" * 100 for number in range(5)}
    unfolded.add(1, log[1], 600)
    assert [len(fold(unfolded, rows, log, budget).rows) for budget in ((2, 9999), (9, 1))] == [2, 1]
    assert log, "the record stays until all of its rows are folded"
    assert [len(fold(unfolded, rows, log, (9, 9999)).rows), log, unfolded.size] == [2, {}, 0]


def test_what_a_later_record_writes_again_is_folded_once():
    unfolded, rows, log = Unfolded(), {}, {}
    for place in range(1, 9):
        log[place] = {("kv", "hot"): bytes([place])}
        unfolded.add(place, log[place], 10)
    step = fold(unfolded, rows, log, (1, 1000))
    assert (step.rows, log) == ([(("kv", "hot"), b"\x08")], {})
