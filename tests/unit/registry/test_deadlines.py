from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.deadlines import Deadlines, Timer

KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("cancel"), KEYS, st.just(0)),
        st.tuples(st.just("due"), KEYS, st.integers(0, 20)),
    ),
    max_size=60,
)


@given(STEPS)
def test_as_a_plain_table_of_times_would_say(steps):
    deadlines, model, now = Deadlines(), {}, 0
    for what, key, number in steps:
        if what == "set":
            deadlines.set(Timer.TTL, key, now + number)
            model[key] = now + number
        elif what == "cancel":
            deadlines.cancel(Timer.TTL, key)
            model.pop(key, None)
        else:
            now += number
            gone_off = deadlines.due(now)
            assert sorted(key for _, key in gone_off) == sorted(key for key, at in model.items() if at <= now)
            model = {key: at for key, at in model.items() if at > now}
        assert {key for key in "abc" if deadlines.is_set(Timer.TTL, key)} == set(model)
        # The edge sleeps until `next`: it must never be later than the next real deadline.
        if model:
            following = deadlines.next()
            assert following is not None
            assert following <= min(model.values())


def test_moving_a_timer_does_not_grow_the_heap():
    deadlines = Deadlines()
    for at in range(10_000):
        deadlines.set(Timer.TTL, "a", at)
    assert len(deadlines._heap) == 1
    assert deadlines.due(9_998) == []
    assert deadlines.due(9_999) == [(Timer.TTL, "a")]
    assert deadlines.next() is None
