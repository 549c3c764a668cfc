from __future__ import annotations

import pytest

from milkrun.registry.checks.damping import Damping
from milkrun.registry.checks.standing import Standing
from milkrun.registry.checks.thresholds import Thresholds
from milkrun.registry.checks.verdict import Result

OK = Result("passing", "HTTP GET http://x: 200 OK Output: ", "fine")
DOWN = Result("critical", "dial tcp: refused")
BROKEN = Result("critical", "HTTP GET http://x: 500 Oops Output: ", "")


class Shown:
    """A catalog of one check."""

    def __init__(self, standing, status="critical", output=""):
        self.standing = standing
        self.status = status
        self.output = output
        self.writes = 0

    def see(self, result, now):
        write = self.standing.after(result, self.status, self.output, now)
        if write:
            self.writes += 1
            self.status, self.output = write
        return write


@pytest.fixture
def shown():
    return Shown(Standing(Thresholds(), Damping(), first=True))


def test_the_same_result_writes_once(shown):
    assert shown.see(OK, 0.0) == ("passing", "HTTP GET http://x: 200 OK Output: fine")
    for second in range(1, 10_000):
        assert shown.see(OK, float(second)) is None


def test_the_first_reason_is_written_although_the_status_is_the_same(shown):
    assert shown.see(DOWN, 0.0) == ("critical", "dial tcp: refused")


def test_another_status_is_written_at_once(shown):
    shown.see(OK, 0.0)
    assert shown.see(DOWN, 0.001) == ("critical", "dial tcp: refused")


def test_another_reason_is_written_after_ten_seconds(shown):
    shown.see(DOWN, 0.0)
    assert shown.see(BROKEN, 9.9) is None
    assert shown.see(BROKEN, 10.0) == ("critical", BROKEN.output)


def test_a_service_that_says_the_time_is_written_every_five_minutes(shown):
    for second in range(3600):
        shown.see(Result("passing", OK.headline, str(second)), float(second))
    assert shown.writes == 12


def test_a_write_that_did_not_come_about_is_told_again(shown):
    assert shown.standing.after(OK, "critical", "", 0.0)
    assert shown.standing.after(OK, "critical", "", 1.0)


def test_a_check_below_its_threshold_changes_nothing():
    shown = Shown(Standing(Thresholds(before_critical=3), None, first=True))
    shown.see(OK, 0.0)
    assert [shown.see(DOWN, at) for at in (1.0, 2.0)] == [None, None]
    assert shown.see(DOWN, 3.0) == ("critical", DOWN.output)


def test_after_a_restart_one_failure_is_not_the_third():
    shown = Shown(Standing(Thresholds(before_critical=3), None, first=False), "passing", OK.output)
    assert [shown.see(DOWN, at) for at in (0.0, 1.0)] == [None, None]
    assert shown.see(DOWN, 2.0)


def test_damping_says_what_it_does_once(shown):
    for at, result in enumerate([OK, DOWN, OK, DOWN]):
        shown.see(result, float(at))
    status, output = shown.see(OK, 14.0)
    assert status == "critical"
    assert output == (
        "Held critical: it fell 2 times within 300 s, and must do better for 60 s without a break. "
        "Last result: HTTP GET http://x: 200 OK Output: "
    )
    writes = shown.writes
    for second in range(15, 74):
        assert shown.see(OK, float(second)) is None
    assert shown.see(OK, 74.0) == ("passing", OK.output)
    assert shown.writes == writes + 1


def test_without_damping_every_change_is_shown():
    shown = Shown(Standing(Thresholds(), None, first=True))
    for second in range(100):
        shown.see((OK, DOWN)[second % 2], float(second))
    assert shown.writes == 100
