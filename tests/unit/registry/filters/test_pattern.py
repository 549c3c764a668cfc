from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.filters.pattern import Budget, Pattern
from milkrun.registry.filters.syntax import WrongPattern, read
from milkrun.registry.refusal import Refused

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "é",
        ".",
        r"\d",
        r"\W",
        r"\w",
        r"\S",
        "[ab]",
        "[^a-c]",
        r"[\d_]",
        r"\.",
        "^",
        "$",
        r"\b",
        r"\B",
        "_",
        "1",
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,}", "{0,2}", "*?"])).map(
            lambda it: f"(?:{it[0]}){it[1]}"
        ),
    ),
    max_leaves=6,
)


def found(pattern, text):
    return Pattern(pattern, Budget()).found_in(text)


@given(PATTERNS, st.text("ab1_.éB", min_size=1, max_size=6), st.sampled_from(["", "(?i)"]))
def test_it_finds_what_pythons_re_finds(pattern, text, flags):
    # Python's `\B` is never in an empty text (until 3.14), and its `$` also holds before a last line break:
    # these texts are neither.
    expected = re.search(flags + pattern, text, re.ASCII)
    assert found(flags + pattern, text) == bool(expected)


@given(st.text(max_size=20) | st.text(r"a\[]()*+?{}|^$.-:P<>,imsU1dpQE", max_size=20), st.text(max_size=5))
def test_any_text_is_a_pattern_or_refused(pattern, text):
    with contextlib.suppress(WrongPattern):
        found(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        (r"(?i)É", "é", True),
        (r"(?i)[a-c]", "B", True),
        (r"(?i:a)b", "AB", False),
        (r"a(?i)b|c", "C", True),
        (r"(?s).", "\n", True),
        (r".", "\n", False),
        (r"(?m)^b$", "a\nb\nc", True),
        (r"^b$", "a\nb\nc", False),
        (r"b\z", "ab\n", False),
        (r"b$", "ab\n", False),
        (r"\Qa.b\E+", "a.bb", True),
        (r"\Qa.b", "axb", False),
        (r"\x41\x{1F410}", "A🐐", True),
        (r"\012", "\n", True),
        (r"\pL\p{Nd}\PN", "é1x", True),
        (r"\p{^L}", "a", False),
        (r"[[:alpha:]][[:^digit:]]", "ab", True),
        (r"[]a]", "]", True),
        (r"[a\]b]", "]", True),
        (r"[a-]", "-", True),
        (r"(?P<name>a)", "a", True),
        (r"a{,2}", "a{,2}", True),
        (r"a{x}", "a{x}", True),
        (r"", "", True),
        (r"()|b", "", True),
        (r"(a*)*b", "aab", True),
        (r"(|a)+", "", True),
    ],
)
def test_what_go_finds(pattern, text, holds):
    assert found(pattern, text) is holds


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a)", "unexpected )"),
        ("(?P<>a)", "invalid named capture"),
        ("(?P<n", "invalid named capture"),
        ("(?", "invalid or unsupported Perl syntax"),
        ("(?i", "invalid or unsupported Perl syntax"),
        ("[[:nope:]]", "invalid character class range: `[:nope:]`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"\p{Greek", r"invalid character class range"),
        (r"\x{110000}", "invalid escape sequence"),
        (r"\xZ", "invalid escape sequence"),
        ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("|*", "missing argument to repetition operator: `*`"),
        ("{2}", "missing argument to repetition operator: `{2}`"),
    ],
)
def test_with_which_words_a_pattern_is_refused(pattern, why):
    with pytest.raises(WrongPattern) as refused:
        read(pattern)
    assert why in str(refused.value)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(a|aa)+$", "a*a*a*a*a*$", "(.*)(.*)(.*)(.*)[^a]$"])
def test_what_takes_others_for_ever_takes_time_in_proportion(pattern):
    steps_a_sign = 40
    Pattern(pattern, Budget(4097 * steps_a_sign)).found_in("a" * 4096 + "b")


def test_a_filter_may_not_take_too_many_steps_over_all_its_answers():
    budget = Budget(1000)
    pattern = Pattern("a*b", budget)
    for _ in range(10):
        pattern.found_in("aaaa")
    with pytest.raises(Refused, match="takes too long"):
        pattern.found_in("a" * 1000)


@pytest.mark.parametrize(
    "pattern", ["(a{1000}){1000}", "((a{100}){100}){100}", "(" * 60 + ")" * 60, "a" * 1001]
)
def test_a_pattern_is_bounded(pattern):
    with pytest.raises(WrongPattern):
        Pattern(pattern, Budget())
