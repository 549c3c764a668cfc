"""The most exact rule decides, compared with a model that looks at every rule for every name."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.access.naive import naive

from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.access.rules import (
    ALL_READS,
    EVERYTHING,
    Level,
    Resource,
    Rule,
    Rules,
    of_service,
)

NAMES = st.text("ab/", max_size=4)
RULES = st.lists(
    st.builds(
        Rule,
        st.sampled_from([Resource.KEY, Resource.SERVICE]),
        NAMES,
        st.sampled_from(Level),
        prefix=st.booleans(),
    ),
    max_size=8,
)
SHORT_NAMES = ["".join(letters) for length in range(7) for letters in product("ab/", repeat=length)]


@given(RULES, st.sampled_from([Resource.KEY, Resource.SERVICE, Resource.NODE]), NAMES)
def test_a_name_has_the_level_that_its_nearest_rule_says(rules, resource, name):
    assert Rules(rules).level(resource, name) is naive(rules, resource, name)


@given(RULES, NAMES)
def test_below_a_prefix_there_is_the_least_level_of_any_name(rules, prefix):
    names = [prefix + more for more in SHORT_NAMES if len(more) <= 5]

    assert Rules(rules).level_below(Resource.KEY, prefix) is min(
        naive(rules, Resource.KEY, name) for name in names
    )


@given(RULES)
def test_the_order_of_rules_says_nothing(rules):
    there, back = Rules(rules), Rules(reversed(rules))

    for name in SHORT_NAMES[:200]:
        assert there.level(Resource.KEY, name) is back.level(Resource.KEY, name)


@given(RULES, RULES)
def test_one_policy_more_never_lifts_what_another_denies_on_the_same_name(some, more):
    denied = {(rule.resource, rule.name, rule.prefix) for rule in [*some, *more] if rule.level is Level.DENY}
    both = Rules([*some, *more])

    for resource, name, prefix in denied:
        if not prefix:
            assert both.level(resource, name) is Level.DENY


@pytest.mark.parametrize(
    ("rules", "name", "level"),
    [
        ([], "shop/a", Level.DENY),
        ([("shop/", Level.READ, True), ("shop/a", Level.WRITE, False)], "shop/a", Level.WRITE),
        ([("shop/a", Level.WRITE, True), ("shop/a", Level.READ, False)], "shop/a", Level.READ),
        ([("shop/a", Level.WRITE, True), ("shop/a", Level.READ, False)], "shop/ab", Level.WRITE),
        ([("", Level.WRITE, True), ("shop/", Level.DENY, True)], "shop/a", Level.DENY),
        ([("", Level.WRITE, True), ("shop/", Level.DENY, True)], "shop", Level.WRITE),
        ([("shop/", Level.READ, True), ("shop/", Level.WRITE, True)], "shop/a", Level.WRITE),
        ([("shop/", Level.DENY, True), ("shop/", Level.WRITE, True)], "shop/a", Level.DENY),
        ([("shop", Level.WRITE, False)], "shopping", Level.DENY),
        ([("", Level.WRITE, False)], "shop", Level.DENY),
    ],
)
def test_of_two_rules_the_nearer_one_counts(rules, name, level):
    made = [Rule(Resource.KEY, of, granted, prefix=prefix) for of, granted, prefix in rules]

    assert Rules(made).level(Resource.KEY, name) is level


def test_a_service_identity_registers_itself_and_finds_the_others():
    who = Authority(of_service("goat"))

    assert who.writes(Resource.SERVICE, "goat")
    assert who.writes(Resource.SERVICE, "goat-sidecar-proxy")
    assert not who.writes(Resource.SERVICE, "goat-2")
    assert who.reads(Resource.SERVICE, "farmer")
    assert who.reads(Resource.NODE, "n1")
    assert not who.writes(Resource.NODE, "n1")
    assert not who.reads(Resource.KEY, "goat")


@given(RULES, NAMES)
def test_the_short_ways_say_nothing_else_than_the_rules(rules, name):
    who = Authority([*EVERYTHING, *rules])

    for resource in (Resource.KEY, Resource.SERVICE):
        level = naive([*EVERYTHING, *rules], resource, name)
        assert who.reads(resource, name) is (level >= Level.READ)
        assert who.writes(resource, name) is (level is Level.WRITE)
        assert who.may(resource, name, Level.WRITE) is (level is Level.WRITE)


def test_who_reads_all_sees_no_tokens():
    reader = Authority(ALL_READS)

    assert reader.reads_all
    assert not reader.writes_all
    assert not reader.may(Resource.ACL, "", Level.READ)
    assert not reader.may(Resource.KEYRING, "", Level.READ)
    assert ALL.writes_all
    assert ALL.reads_all
