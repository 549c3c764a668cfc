from __future__ import annotations

import pytest

from milkrun.cli.weights import parse_pairs
from milkrun.errors import InputRefused, UsageError


def test_pairs_are_versions_with_weights():
    assert parse_pairs(("0.0.1=80", "version=0.0.2=0.5")) == {"0.0.1": 80.0, "0.0.2": 0.5}


@pytest.mark.parametrize("pair", ["0.0.1", "0.0.1=", "0.0.1=x", "0.0.1=-1", "0.0.1=nan", "0.0.1=inf", "=1"])
def test_anything_else_is_refused_with_an_example(pair: str):
    with pytest.raises((UsageError, InputRefused)) as caught:
        parse_pairs((pair,))
    assert caught.value.remedy


def test_a_version_twice_is_refused():
    with pytest.raises(UsageError, match="twice"):
        parse_pairs(("1=1", "1=2"))
