"""How servers are to be looked after is kept as it was said, though there is only one."""

from __future__ import annotations

import pytest

from milkrun.registry import commands
from milkrun.registry.autopilot import Configuration
from milkrun.registry.snapshot import pack, unpack

SAID = Configuration(cleanup_dead_servers=False, max_trailing_logs=7, server_stabilization_time_s=1.5)


def kept(bench) -> tuple[bool, int, float]:
    now = bench.machine.autopilot.configuration
    return now.cleanup_dead_servers, now.max_trailing_logs, now.server_stabilization_time_s


def test_it_stays_through_restarts(bench):
    assert kept(bench) == (True, 250, 10.0)
    assert bench.do(commands.ConfigureAutopilot(SAID)) is True
    for _ in range(2):
        assert kept(bench) == (False, 7, 1.5)
        bench.restart()


@pytest.mark.parametrize(("off_by", "done"), [(0, True), (1, False)])
def test_with_cas_it_changes_only_what_was_seen(bench, off_by, done):
    bench.do(commands.ConfigureAutopilot(Configuration()))
    seen = bench.machine.autopilot.configuration

    assert bench.do(commands.ConfigureAutopilot(SAID, seen.modify_index + off_by)) is done
    now = bench.machine.autopilot.configuration
    assert now.cleanup_dead_servers is not done
    assert now.create_index == seen.create_index
    assert (now.modify_index > seen.modify_index) is done


def test_a_snapshot_brings_it_back(bench):
    bench.do(commands.ConfigureAutopilot(SAID))
    whole = unpack(pack(bench.machine.whole()))
    bench.do(commands.ConfigureAutopilot(Configuration()))
    bench.do(commands.Restore(whole))

    for _ in range(2):
        assert kept(bench) == (False, 7, 1.5)
        bench.restart()
    index = bench.machine.ledger.index
    bench.do(commands.Restore(whole))
    assert bench.machine.ledger.index == index, "a restore of what is there changes nothing"
