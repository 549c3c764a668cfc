from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from milkrun.registry.checks.rounds import Rounds

AT_ONCE = 4
IDS = st.sampled_from([f"c{number}" for number in range(12)])


def test_the_first_look_is_spread_over_the_interval_but_comes_within_ten_seconds():
    rounds = Rounds(AT_ONCE)
    rounds.follow("a", 4.0, 100.0, 0.5)
    rounds.follow("b", 3600.0, 100.0, 1.0)
    assert rounds.next() == 102.0
    assert rounds.due(101.9) == []
    assert rounds.due(102.0) == ["a"]
    assert rounds.next() == 110.0


def test_the_interval_counts_from_the_end_of_a_look():
    rounds = Rounds(AT_ONCE)
    rounds.follow("a", 5.0, 0.0, 0.0)
    assert rounds.due(0.0) == ["a"]
    assert rounds.due(50.0) == []
    assert rounds.next() is None
    rounds.done("a", 50.0, timed_out=False)
    assert rounds.next() == 55.0


def test_what_changed_during_a_look_is_looked_at_again_by_its_new_clock():
    rounds = Rounds(AT_ONCE)
    rounds.follow("a", 3600.0, 0.0, 0.0)
    rounds.due(0.0)
    rounds.follow("a", 2.0, 10.0, 0.5)
    assert rounds.due(20.0) == []
    rounds.done("a", 20.0, timed_out=True)
    assert rounds.next() == 11.0
    assert rounds.due(20.0) == ["a"]


def test_what_is_forgotten_during_a_look_stays_so():
    rounds = Rounds(AT_ONCE)
    rounds.follow("a", 1.0, 0.0, 0.0)
    rounds.due(0.0)
    rounds.forget("a")
    rounds.done("a", 1.0, timed_out=False)
    assert rounds.next() is None
    assert rounds.due(100.0) == []


def test_hanging_checks_take_half_of_the_places():
    rounds = Rounds(AT_ONCE)
    for number in range(8):
        rounds.follow(f"slow{number}", 1.0, 0.0, 0.0)
    while first := rounds.due(0.0):
        for check_id in first:
            rounds.done(check_id, 0.0, timed_out=True)
    for number in range(8):
        rounds.follow(f"quick{number}", 1.0, 0.0, 1.0)
    started = rounds.due(10.0)
    assert sorted(each[:4] for each in started) == ["quic", "quic", "slow", "slow"]
    quick = next(each for each in started if each.startswith("quick"))
    rounds.done(quick, 10.0, timed_out=False)
    assert rounds.next() == 1.0
    assert rounds.due(10.0)[0].startswith("quick")


def test_nothing_is_due_while_only_slow_checks_wait_for_slow_places():
    rounds = Rounds(AT_ONCE)
    for number in range(4):
        rounds.follow(f"slow{number}", 1.0, 0.0, 0.0)
    for check_id in rounds.due(0.0):
        rounds.done(check_id, 0.0, timed_out=True)
    assert len(rounds.due(5.0)) == 2
    assert rounds.next() is None
    assert rounds.due(5.0) == []


class Any(RuleBasedStateMachine):
    """Whatever comes in whatever order: no check twice at once, never too many, none lost, no busy loop."""

    def __init__(self):
        super().__init__()
        self.rounds = Rounds(AT_ONCE)
        self.now = 0.0
        self.followed = set()
        self.running = []

    @rule(check_id=IDS, every_s=st.sampled_from([1.0, 7.0, 60.0]), spread=st.floats(0, 1))
    def follow(self, check_id, every_s, spread):
        self.rounds.follow(check_id, every_s, self.now, spread)
        self.followed.add(check_id)

    @rule(check_id=IDS)
    def forget(self, check_id):
        self.rounds.forget(check_id)
        self.followed.discard(check_id)

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 100.0]))
    def later(self, seconds):
        self.now += seconds
        found = self.rounds.due(self.now)
        assert set(found) <= self.followed
        assert not set(found) & set(self.running)
        self.running += found
        again = self.rounds.next()
        assert again is None or again > self.now, "the loop would spin"

    @rule(timed_out=st.booleans())
    def end(self, timed_out):
        if self.running:
            self.rounds.done(self.running.pop(0), self.now, timed_out=timed_out)

    @invariant()
    def bounded(self):
        assert len(self.running) <= AT_ONCE
        assert len(set(self.running)) == len(self.running)

    def teardown(self):
        """Every check that is still followed comes again."""
        seen = set()
        for _ in range(60):
            for check_id in self.running:
                self.rounds.done(check_id, self.now, timed_out=False)
            self.now += 60.0
            self.running = self.rounds.due(self.now)
            seen |= set(self.running)
        assert seen == self.followed


TestAny = Any.TestCase
