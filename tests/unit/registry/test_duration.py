from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.duration import counted, nanoseconds, seconds, spelled


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("15s", 15_000_000_000),
        ("15.000000s", 15_000_000_000),
        ("0.001s", 1_000_000),
        (".5s", 500_000_000),
        ("60000ms", 60_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h", 3_600_000_000_000),
        ("2us3ns", 2_003),
        ("1µs", 1_000),
        ("0", 0),
        ("+5s", 5_000_000_000),
        ("-5s", -5_000_000_000),
    ],
)
def test_as_go_reads_it(text, wanted):
    assert nanoseconds(text) == wanted
    assert seconds(text) == wanted / 1e9


@pytest.mark.parametrize(
    "text",
    ["", "abc", "10", "s", "1s ", " 1s", "1 s", "1S", "1d", "--1s", "1e3s", "٣s", "1." + "0" * 99 + "s"],
)
def test_what_go_refuses(text):
    with pytest.raises(ValueError, match="time: invalid duration"):
        nanoseconds(text)


def test_what_does_not_fit_in_63_bits():
    assert nanoseconds("9223372036854775807ns") == 2**63 - 1
    with pytest.raises(ValueError, match="invalid duration"):
        nanoseconds("9223372036854775808ns")


@given(st.text(max_size=80))
def test_nothing_else_is_raised(text):
    with contextlib.suppress(ValueError):
        assert abs(nanoseconds(text)) < 2**63


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 999))
def test_the_parts_add_up(hours, minutes, millis):
    wanted = ((hours * 60 + minutes) * 60_000 + millis) * 1_000_000
    assert nanoseconds(f"{hours}h{minutes}m{millis}ms") == wanted


@given(st.integers() | st.floats() | st.integers(-(10**400), 10**400), st.sampled_from([1, 1_000_000_000]))
def test_a_number_is_a_duration_that_go_holds_or_none(number, unit_ns):
    try:
        found = counted(number, unit_ns)
    except ValueError:
        assert not -(2**63) < number * unit_ns < 2**63
    else:
        assert found == int(number * unit_ns)
        assert -(2**63) < found < 2**63


@pytest.mark.parametrize(
    ("duration_s", "wanted"),
    [
        (0, "0s"),
        (0.2, "200ms"),
        (1.5e-3, "1.5ms"),
        (1e-5, "10µs"),
        (1, "1s"),
        (60, "1m0s"),
        (86400, "24h0m0s"),
        (-3600, "-1h0m0s"),
        (61.5, "1m1.5s"),
        (3661, "1h1m1s"),
    ],
)
def test_as_go_writes_it(duration_s, wanted):
    assert spelled(duration_s) == wanted


@given(st.integers(-(10**15), 10**15))
def test_what_is_spelled_is_read_back(micros):
    assert nanoseconds(spelled(micros / 1e6)) == pytest.approx(micros * 1000, abs=1000)
