"""What is written as HCL or JSON is read as it was meant; anything else is refused, never passed over."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.access import language
from milkrun.registry.access.language import parsed
from milkrun.registry.access.rules import SINGLE, Level, Resource, Rule
from milkrun.registry.refusal import Refused

NAMED = sorted(set(Resource) - SINGLE)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
NAMED_RULES = st.builds(Rule, st.sampled_from(NAMED), NAMES, st.sampled_from(Level), prefix=st.booleans())
SINGLE_RULES = st.builds(
    Rule, st.sampled_from(sorted(SINGLE)), st.just(""), st.sampled_from(Level), prefix=st.just(True)
)
RULES = st.lists(
    NAMED_RULES | SINGLE_RULES, max_size=8, unique_by=lambda rule: (rule.resource, rule.name, rule.prefix)
)
BLANKS = st.sampled_from(["", " ", "\n", "\t", "# a goat { }\n", '// key "x"\n', "/* over\nlines = */"])


def word_of(rule: Rule) -> str:
    return rule.resource + ("_prefix" if rule.prefix and rule.resource not in SINGLE else "")


def as_blocks(rules: list[Rule], blanks: list[str]) -> str:
    gaps = iter([*blanks, *[" "] * (10 * len(rules) + 1)])
    text = next(gaps)
    for rule in rules:
        level = f'"{rule.level.name.lower()}"'
        if rule.resource in SINGLE:
            parts = [word_of(rule), "=", level]
        else:
            name = '"' + rule.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
            parts = [word_of(rule), name, "{", "policy", "=", level, "}"]
        text += "".join(part + next(gaps) for part in parts)
    return text


def as_json(rules: list[Rule]) -> str:
    whole: dict[str, object] = {}
    for rule in rules:
        level = rule.level.name.lower()
        if rule.resource in SINGLE:
            whole[word_of(rule)] = level
        else:
            blocks = whole.setdefault(word_of(rule), {})
            assert isinstance(blocks, dict)
            blocks[rule.name] = {"policy": level}
    return json.dumps(whole)


@given(RULES, st.lists(BLANKS, max_size=40))
def test_what_is_written_in_blocks_is_read_as_it_was_meant(rules, blanks):
    assert parsed(as_blocks(rules, blanks)) == rules


@given(RULES)
def test_what_is_written_as_json_is_read_as_it_was_meant(rules):
    assert sorted(parsed(as_json(rules)), key=repr) == sorted(rules, key=repr)


def read_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        parsed(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    read_or_refused(text)


FRAGMENTS = [
    "key",
    "key_prefix",
    "operator",
    '"a"',
    '"',
    "{",
    "}",
    "=",
    "policy",
    '"write"',
    "\n",
    "\t",
    "#",
    "/*",
]


@given(st.lists(st.sampled_from([*FRAGMENTS, '"a\tb"', '"\x7f"', '"\\u0041"', "[", "é"])).map(" ".join))
def test_nearly_right_text_is_read_or_refused(text):
    read_or_refused(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["key", "policy", "acl", "x", ""]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused(value):
    read_or_refused(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('key "a" { policy = "list" }', "read, write or deny"),
        ('key "a" { policy = "WRITE" }', "read, write or deny"),
        ('kye "a" { policy = "read" }', "no kind of rule"),
        ('operator "x" { policy = "read" }', "no kind of rule"),
        ('key = "read"', "no rule"),
        ('key "a" { }', "no policy"),
        ('key "a" { policy = "read" sentinel = "x" }', "no sentinel"),
        ('key "a" { policy = "read"', "comes where"),
        ('\n\nkey "a" { policy "read" }', "line 3"),
        ('key "a\tb" { policy = "read" }', "not understood"),
        ('{"key": {"a": {"policy": "list"}}}', "read, write or deny"),
        ('{"key": {"a": "read"}}', "failed to parse"),
        ('{"key": ', "failed to parse"),
        ('{"key": {"a": {"policy": "deny"}, "a": {"policy": "write"}}}', "'a' is there twice"),
        ('{"operator": "deny", "operator": "write"}', "'operator' is there twice"),
        ('{"operator": ' + "1" * 5000 + "}", "failed to parse"),
        (r'{"key": {"a": {"\ud800": "read"}}}', "failed to parse"),
        ("{" * 100_000, "more than"),
        ('{"key": ' * 2000, "failed to parse"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_reason(text, why):
    with pytest.raises(Refused, match=why):
        parsed(text)


def test_nothing_is_no_rule():
    assert parsed("") == []
    assert parsed("# only talk\n") == []
    assert parsed("{}") == []


def test_intentions_are_passed_over_for_there_is_no_mesh():
    text = 'service "goat" { policy = "read" intentions = "write" }'

    assert parsed(text) == [Rule(Resource.SERVICE, "goat", Level.READ)]


def test_a_policy_is_a_small_text():
    many = (
        '{"key": {'
        + ", ".join(f'"{n}": {{"policy": "read"}}' for n in range(language.RULES_AT_MOST + 1))
        + "}}"
    )

    with pytest.raises(Refused, match="more than 1024 rules"):
        parsed(many)
    with pytest.raises(Refused, match="characters"):
        parsed("#" * (language.TEXT_AT_MOST + 1))
