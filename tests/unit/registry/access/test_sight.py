"""What an answer may hold: each struct that a handler sends is decided, and no other one slips through."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.access.naive import naive

from milkrun.registry import nouns, views
from milkrun.registry.access import sight
from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.access.rules import EVERYTHING, Level, Resource, Rule
from milkrun.registry.catalog import Catalog
from milkrun.registry.events import Event
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import Check, Entry, Node, Service, Session
from milkrun.registry.txn import Shown
from milkrun.registry.views import HealthEntry

NODE = Node(node="n1", address="10.0.0.1")
GOAT = Service(id="goat-1", service="goat")
SESSION = Session(id="00000000-0000-0000-0000-000000000001", node="n1")
KEY, ON_NODE, OF_GOAT = (Resource.KEY, "shop/a"), (Resource.NODE, "n1"), (Resource.SERVICE, "goat")


def catalog() -> Catalog:
    found = Catalog(Ledger())
    found.load_node(NODE)
    found.load_service("n1", GOAT)
    return found


ITEMS: list[tuple[Any, list[tuple[Resource, str]]]] = [
    (Entry(key="shop/a"), [KEY]),
    (HealthEntry(NODE, GOAT, []), [ON_NODE, OF_GOAT]),
    (next(iter(views.catalog_rows(catalog()))), [ON_NODE, OF_GOAT]),
    (NODE, [ON_NODE]),
    (GOAT, [OF_GOAT]),
    (Check(node="n1", check_id="c", name="c", service_id="goat-1", service_name="goat"), [ON_NODE, OF_GOAT]),
    (Check(node="n1", check_id="c", name="c"), [ON_NODE]),
    (SESSION, [(Resource.SESSION, "n1")]),
    (Event(id="e", name="milk"), [(Resource.EVENT, "milk")]),
]
NAMES = [type(item).__name__ + ("" if len(needs) > 1 else " alone") for item, needs in ITEMS]


@pytest.mark.parametrize(("item", "needs"), ITEMS, ids=NAMES)
def test_an_item_is_seen_with_all_that_it_needs_and_not_with_less(item, needs):
    rules = [Rule(resource, name, Level.READ) for resource, name in needs]

    assert sight.may_see(Authority(rules), item)
    for missing in rules:
        assert not sight.may_see(Authority(rule for rule in rules if rule is not missing), item)
        denied = Rule(missing.resource, missing.name, Level.DENY)
        assert not sight.may_see(Authority([*EVERYTHING, denied]), item)
        other = Rule(missing.resource, missing.name + "x", Level.WRITE)
        assert not sight.may_see(Authority([other, *(rule for rule in rules if rule is not missing)]), item)


def test_each_struct_that_is_shown_is_decided():
    decided = {type(item) for item, _ in ITEMS}

    assert set(get_args(Shown)) <= decided, "a transaction shows these"
    assert {HealthEntry, views.CatalogEntry} <= decided
    with pytest.raises(TypeError, match="Weights"):
        sight.may_see(Authority([]), nouns.Weights())
    with pytest.raises(TypeError, match="dict"):
        sight.seen(Authority([]), [{}])


@given(
    st.lists(
        st.builds(
            Rule,
            st.just(Resource.KEY),
            st.text("ab", max_size=2),
            st.sampled_from(Level),
            prefix=st.booleans(),
        ),
        max_size=5,
    ),
    st.lists(st.text("ab", min_size=1, max_size=3), unique=True, max_size=6),
)
def test_a_list_loses_what_may_not_be_read_and_is_another_one_then(rules, keys):
    items = [Entry(key=key) for key in keys]
    kept = sight.seen(Authority(rules), items)

    assert [each.key for each in kept] == [
        key for key in keys if naive(rules, Resource.KEY, key) >= Level.READ
    ]
    assert (kept is items) is (len(kept) == len(items)), "the reply is marked when it is another list"


NO_RULES = Authority([])
WHOLE_NODE = {"Node": "n1", "Services": [GOAT], "Checks": [ITEMS[5][0], ITEMS[6][0]]}


@pytest.mark.parametrize(
    ("narrow", "whole", "nothing"),
    [
        (sight.seen, [GOAT], []),
        (sight.of_values, {"goat-1": GOAT}, {}),
        (sight.of_names, {"goat": ["v1"]}, {}),
        (sight.of_node, {"Node": NODE, "Services": {"goat-1": GOAT}}, None),
        (sight.of_node, {"Node": NODE, "Services": [GOAT]}, None),
        (sight.of_whole_node, WHOLE_NODE, {"Node": "n1", "Services": [], "Checks": []}),
        (sight.of_whole_nodes, [WHOLE_NODE], []),
        (sight.of_checks_here, {"check": ITEMS[5][0], "node": ITEMS[6][0]}, {}),
    ],
)
def test_who_may_read_nothing_sees_nothing_and_who_may_read_all_sees_the_same(narrow, whole, nothing):
    assert narrow(NO_RULES, whole) == nothing
    assert narrow(ALL, whole) is whole
    nearly_all = Authority([*EVERYTHING, Rule(Resource.KEY, "a", Level.DENY)])
    assert not nearly_all.reads_all
    assert narrow(nearly_all, whole) is whole


def test_a_node_is_shown_without_the_services_that_may_not_be_read():
    who = Authority([Rule(*ON_NODE, Level.READ)])

    assert sight.of_node(who, {"Node": NODE, "Services": [GOAT]}) == {"Node": NODE, "Services": []}
    assert sight.of_whole_node(who, WHOLE_NODE) == {"Node": "n1", "Services": [], "Checks": [ITEMS[6][0]]}
    assert sight.of_node(who, None) is None
