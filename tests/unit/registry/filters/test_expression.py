from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.filters.expression import (
    DEPTH_AT_MOST,
    SIZE_AT_MOST,
    And,
    Expression,
    Match,
    Not,
    Operator,
    Or,
    parse,
)
from milkrun.registry.refusal import Refused

NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,5}", fullmatch=True).filter(lambda it: it != "not")
VALUES = st.text(st.characters(exclude_characters="`", exclude_categories=("Cs",)), max_size=8)
SELECTORS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
MATCHES = st.one_of(
    st.builds(Match, SELECTORS, st.sampled_from([it for it in Operator if "Empty" not in it.value]), VALUES),
    st.builds(Match, SELECTORS, st.sampled_from([Operator.IS_EMPTY, Operator.IS_NOT_EMPTY])),
)
EXPRESSIONS = st.recursive(
    MATCHES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
WORDS = {
    Operator.EQUAL: "==",
    Operator.NOT_EQUAL: "!=",
    Operator.IS_EMPTY: "is empty",
    Operator.IS_NOT_EMPTY: "is not empty",
    Operator.MATCHES: "matches",
    Operator.NOT_MATCHES: "not matches",
}


def written(expression: Expression) -> str:
    match expression:
        case Match(selector, Operator.IN, value):
            return f"`{value}` in {'.'.join(selector)}"
        case Match(selector, Operator.NOT_IN, value):
            return f"{'.'.join(selector)} not contains `{value}`"
        case Match(selector, operator, None):
            return f"{'.'.join(selector)} {WORDS[operator]}"
        case Match(selector, operator, value):
            return f"{'.'.join(selector)} {WORDS[operator]} `{value}`"
        case Not(of):
            return f"not ({written(of)})"
        case And(of):
            return " and ".join(f"({written(each)})" for each in of)
        case Or(of):
            return " or ".join(f"({written(each)})" for each in of)


@given(EXPRESSIONS)
def test_what_is_written_is_read(expression):
    assert parse(written(expression)) == expression


@given(st.text(max_size=40) | st.text('ab.[]()`"=!0-1 \tnotinadris', max_size=40))
def test_any_text_is_an_expression_or_refused_with_its_place(text):
    try:
        parse(text)
    except Refused as refused:
        said = refused.message
    else:
        return
    assert re.match(r"Failed to create boolean expression evaluator: \d+:\d+ \(\d+\): ", said)


def test_and_binds_closer_than_or_and_not_closest():
    a, b, c = (Match((name,), Operator.EQUAL, "1") for name in "abc")
    assert parse("a == 1 or b == 1 and c == 1") == Or((a, And((b, c))))
    assert parse("not a == 1 and b == 1") == And((Not(a), b))
    assert parse("(a == 1 or b == 1) and c == 1") == And((Or((a, b)), c))


def test_a_filter_is_bounded_in_size_and_depth():
    parse("not " * DEPTH_AT_MOST + "a == 1")
    parse("(" * DEPTH_AT_MOST + "a == 1" + ")" * DEPTH_AT_MOST)
    for deep in ("not " * (DEPTH_AT_MOST + 1) + "a == 1", "(" * (DEPTH_AT_MOST + 1) + "a == 1"):
        with pytest.raises(Refused, match=f"more than {DEPTH_AT_MOST} deep"):
            parse(deep)
    with pytest.raises(Refused, match=f"the most is {SIZE_AT_MOST}"):
        parse("a == " + "1" * SIZE_AT_MOST)
    wide = " or ".join(["a == 1"] * 800)
    assert len(parse(wide).of) == 800


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'a == "x\ty"', "x\ty"),
        (r'a == "\x41\u00e9\U0001F410"', "Aé🐐"),
        (r'a == "\\"', "\\"),
        (r"a == `\t`", r"\t"),
        ("a == b.c", "b.c"),
        ("a == -1.5", "-1.5"),
    ],
)
def test_values_are_read_as_go_reads_them(text, value):
    assert parse(text).value == value


@pytest.mark.parametrize("inside", [r"\q", "\\", r"\x4", r"\ud800", r"\U00110000", "\n", r"\'"])
def test_what_go_would_not_unquote_is_refused(inside):
    with pytest.raises(Refused, match=r'rule "string"'):
        parse(f'a == "{inside}"')


def test_the_place_counts_lines_columns_and_bytes():
    with pytest.raises(Refused, match=r"2:5 \(14\): no match found"):
        parse('a == "é"\nand ?')
