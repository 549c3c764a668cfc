from __future__ import annotations

import pytest

from milkrun.router.haproxy.binary import Binary


@pytest.mark.parametrize(
    "version", [(2, 6, 15), (2, 8, 25), (2, 9, 10), (3, 0, 11), (3, 1, 0), (3, 2, 26), (4, 0, 0)]
)
def test_a_release_that_mends_the_known_holes_is_not_warned_of(version):
    assert Binary("haproxy", version).weakness == ""


@pytest.mark.parametrize("version", [(2, 4, 30), (2, 6, 12), (2, 7, 9), (2, 8, 1), (2, 9, 9), (3, 0, 3)])
def test_one_that_does_not_is_named_with_what_is_needed(version):
    weakness = Binary("haproxy", version).weakness

    assert ".".join(map(str, version)) in weakness
    assert "older than" in weakness


def test_only_from_2_7_on_a_master_says_what_came_of_a_reload():
    assert not Binary("haproxy", (2, 6, 12)).answers_reloads
    assert Binary("haproxy", (2, 7, 0)).answers_reloads
