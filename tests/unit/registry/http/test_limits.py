from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.http.limits import Limits


@given(st.integers(16, 1 << 20))
def test_nobody_gets_all_files_and_no_watcher_the_last_quarter(files):
    limits = Limits.by_files(files)
    assert limits.connections <= files - min(files // 2, 256)
    assert 4 * limits.per_address <= 3 * limits.connections
    assert 4 * limits.watchers_per_address <= 3 * limits.per_address
    assert 4 * limits.watchers <= 3 * limits.connections
    assert min(limits.connections, limits.per_address, limits.watchers, limits.watchers_per_address) >= 1


@given(st.integers(16, 1 << 20), st.integers(0, 1 << 16))
def test_more_files_never_mean_less(files, more):
    few, many = Limits.by_files(files), Limits.by_files(files + more)
    for name in ("connections", "per_address", "watchers", "watchers_per_address"):
        assert getattr(few, name) <= getattr(many, name)


def test_five_thousand_watchers_of_one_address_are_no_problem():
    assert Limits.by_files(65_536) == Limits()
    assert Limits.by_files(20_000).watchers_per_address > 5_000
    assert Limits().watchers_per_address > 5_000
    assert Limits().per_address > 5_000
