from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.rollout.migrations.pace import Pressure, pace
from milkrun.settings.migration import MigrationSettings

SETTINGS = MigrationSettings(batch=1000, p99_ms_at_most=100, replica_lag_s_at_most=10, dead_rows_at_most=5000)
figures = st.none() | st.floats(0, 1e9)


@given(
    st.integers(1, 1000),
    st.builds(Pressure, p99_ms=figures, replica_lag_s=figures, dead_rows=figures),
)
def test_a_batch_is_never_larger_than_asked_and_every_pause_ends(before, seen):
    found = pace(before, seen, SETTINGS)

    assert found.size == 0 or 62 <= found.size <= 1000
    assert 0 <= found.pause_s <= 5
    assert bool(found.why) == (found.pause_s > 0)


def test_half_as_fast_with_each_look_then_slowly_faster():
    busy = Pressure(p99_ms=120)
    sizes = [1000]
    for _ in range(6):
        sizes.append(pace(sizes[-1], busy, SETTINGS).size)
    assert sizes == [1000, 500, 250, 125, 62, 62, 62]
    assert pace(62, Pressure(p99_ms=90), SETTINGS).size == 162
    assert pace(950, Pressure(), SETTINGS).size == 1000


def test_at_twice_a_limit_it_waits_and_says_why():
    found = pace(1000, Pressure(p99_ms=120, replica_lag_s=25), SETTINGS)
    assert (found.size, found.pause_s, found.why) == (0, 1.0, "replicas behind in s 25, above 10")


def test_a_limit_of_zero_is_not_looked_at():
    assert not pace(1000, Pressure(p99_ms=1e9), MigrationSettings()).why
