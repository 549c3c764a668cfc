from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.settings import rollout_steps
from milkrun.settings.rollout_steps import Analyse, Approve, Pause, Ramp, Smoke, Weight, parse, said


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("smoke", Smoke()),
        ("weight 5%", Weight(5.0)),
        ("weight 0.01%", Weight(0.01)),
        ("analyse 90s", Analyse(90.0)),
        ("ramp 100% by 10% every 30s", Ramp(100.0, 10.0, 30.0)),
        ("pause", Pause()),
        ("pause  5m", Pause(300.0)),
        ("approve", Approve()),
        ("approve 24h", Approve(86_400.0)),
    ],
)
def test_steps_as_people_write_them(text, step):
    assert parse(text) == step
    assert parse(said(step)) == step


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no step"),
        ("wieght 5%", "did you mean `weight`"),
        ("weight", "it is written as `weight 5%`"),
        ("weight 5", "is no share"),
        ("weight 0%", "is no share"),
        ("weight 101%", "is no share"),
        ("weight 0.001%", "is no share"),
        ("analyse 0s", "is no time"),
        ("analyse 5", "is no time"),
        ("pause 31d", "is no time"),
        ("ramp 100% by 0.5% every 1s", "more than 100 steps"),
        ("smoke 5", "it is written as `smoke`"),
    ],
)
def test_what_is_no_step_is_refused_with_the_way_to_write_it(text, why):
    with pytest.raises(InputRefused, match=why):
        parse(text)


@given(st.text())
def test_any_text_is_a_step_or_refused(text):
    try:
        step = parse(text)
    except InputRefused:
        return
    assert parse(said(step)) == step


@given(st.floats(0.001, 86_400).map(lambda value: round(value, 3)))
def test_a_time_is_written_as_it_is_read(seconds):
    assert rollout_steps.seconds(rollout_steps.time(seconds)) == pytest.approx(seconds)
