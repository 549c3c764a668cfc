"""Tails and quantiles as scipy has them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from milkrun.rollout.analysis import distributions

tails = st.floats(1e-9, 0.5)
degrees = st.floats(1, 5000)


@settings(deadline=None)
@given(tail=st.floats(1e-9, 0.999))
def test_normal_quantile(tail):
    assert distributions.normal_quantile(tail) == pytest.approx(stats.norm.isf(tail), rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(t=st.floats(-50, 50), df=degrees)
def test_student_tail(t, df):
    assert distributions.student_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(tail=tails, df=degrees)
def test_student_quantile_has_that_tail(tail, df):
    assert stats.t.sf(distributions.student_quantile(tail, df), df) == pytest.approx(tail, rel=1e-5)


@settings(deadline=None)
@given(of=st.integers(0, 200_000), part=st.floats(0, 1), chance=st.floats(0, 1))
def test_binomial_tail(of, part, chance):
    least = round(of * part)
    told = distributions.binomial_tail(least, of, chance)
    assert told == pytest.approx(stats.binom.sf(least - 1, of, chance), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(of=st.integers(50, 100_000), chance=st.floats(0.001, 0.3), off=st.floats(-5, 5))
def test_binomial_tail_where_it_matters(of, chance, off):
    least = max(0, round(of * chance + off * (of * chance * (1 - chance)) ** 0.5))
    told = distributions.binomial_tail(least, of, chance)
    assert told == pytest.approx(stats.binom.sf(least - 1, of, chance), rel=1e-6)


@settings(deadline=None)
@given(a=st.floats(0.5, 1e5), b=st.floats(0.5, 1e5), x=st.floats(0, 1))
def test_beta_part(a, b, x):
    assert distributions.beta_part(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-6, abs=1e-9)
