from __future__ import annotations

import re

import pytest

from milkrun.router.haproxy import section
from milkrun.settings.service import TrafficSettings


def pause_s(options: str) -> int:
    found = re.search(r"\binter (\d+)s\b", options)
    assert found
    return int(found[1])


@pytest.mark.parametrize("servers", [0, 1, 999, 1000, 1001, 9_999, 10_000, 123_456])
def test_a_service_is_probed_a_thousand_times_a_second_at_most_and_each_server_once_a_second(servers):
    pause = pause_s(section.server_options(TrafficSettings(), servers))

    assert servers / pause <= section.PROBES_A_SECOND
    assert pause == 1 or servers / (pause - 1) > section.PROBES_A_SECOND


def test_the_pool_is_probed_tenfold_more_seldom_and_of_very_many_servers_not_at_all():
    few, many = section.POOL_PROBED_AT_MOST, section.POOL_PROBED_AT_MOST + 1

    assert pause_s(section.server_options(TrafficSettings(), few, pooled=True)) == 10
    assert section.server_options(TrafficSettings(), many, pooled=True) == ""
    assert "check" in section.server_options(TrafficSettings(), many)
