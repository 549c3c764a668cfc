from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.cli.table import percent, short, table

CELL = st.text(st.characters(categories=["L", "N", "P"]), max_size=12)


def test_columns_line_up_and_numbers_stand_to_the_right():
    assert table(["NAME", ">COUNT"], [["a", "1"], ["long", "1,000"]], indent="") == [
        "NAME  COUNT",
        "a         1",
        "long  1,000",
    ]


def test_an_empty_cell_is_a_dash():
    assert table(["A", "B"], [["", "x"]], indent="")[1] == "-  x"


@given(st.lists(st.lists(CELL, min_size=3, max_size=3)))
def test_each_column_starts_at_the_same_place(rows: list[list[str]]):
    lines = table(["ONE", "TWO", "THREE"], rows, indent="")
    start = lines[0].index("THREE")
    for row, line in zip(rows, lines[1:], strict=True):
        assert line[start:] == (row[2] or "-")


def test_shares_have_two_digits():
    assert [percent(0.999), percent(0.0001), percent(None)] == ["99.90 %", "0.01 %", ""]
    assert [short("4c1266d0"), short(None)] == ["4c1266d", ""]
