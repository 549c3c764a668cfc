from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.model import (
    CommitId,
    CommitMark,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
)
from milkrun.router.desired import Known, Mode, RoutingState, Server, desired, sentence, slots
from milkrun.router.placement import totals

V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")


def instance(name, version=V1, health=Health.PASSING, **fields):
    defaults = {"address": "127.0.0.1", "port": 8101 + sum(map(ord, name)) % 90}
    return Instance(
        id=InstanceId(name),
        service=ServiceName("goat"),
        version=version,
        health=health,
        **(defaults | fields),
    )


def wish(generation=1, *, maintenance=False, **weights):
    names = {"v1": V1, "v2": V2}
    return Wish(
        versions={names[name]: VersionWish(weight=weight) for name, weight in weights.items()},
        maintenance=maintenance,
        mark=CommitMark(commit=CommitId(f"{generation:040x}"), generation=generation),
    )


def serving(state: RoutingState):
    return set(state.serving())


def test_shares_do_not_depend_on_instance_counts():
    many = [instance(f"a{n}") for n in range(7)] + [instance("b", V2)]

    assert desired(many, wish(v1=90, v2=10), Known()).state.shares == {V1: 9000, V2: 1000}


def test_without_any_weight_the_service_spreads_over_all_healthy_instances():
    found = [instance("a"), instance("b"), instance("c", V2), instance("d", V2, Health.CRITICAL)]

    assert desired(found, Wish(), Known()).state.shares == {V1: 6667, V2: 3333}


def test_as_soon_as_one_weight_exists_a_version_without_one_gets_nothing():
    decision = desired([instance("a"), instance("b", V2)], wish(v1=1), Known())

    assert decision.state.shares == {V1: 10_000}
    assert V2 in decision.state.versions


def test_a_weighted_version_with_nobody_healthy_gives_its_share_to_the_others():
    found = [instance("a"), instance("b"), instance("c", V2, Health.CRITICAL)]

    decision = desired(found, wish(v1=80, v2=20), Known())

    assert decision.state.shares == {V1: 10_000}
    assert decision.held == []


def test_a_weight_that_nobody_can_serve_leaves_the_last_shares():
    before = desired([instance("a")], wish(v1=1), Known())

    after = desired([instance("a")], wish(2, v1=0, v2=100), before.known)

    assert after.state.shares == {V1: 10_000}
    assert after.known.generation == 1
    assert "0.0.2" in after.held[0]


def test_all_zero_with_maintenance_serves_nobody():
    decision = desired([instance("a")], wish(maintenance=True, v1=0), Known())

    assert decision.state.shares == {}
    assert decision.known.generation == 1


def test_all_zero_without_maintenance_leaves_the_last_shares():
    before = desired([instance("a")], wish(v1=1), Known())

    assert desired([instance("a")], wish(2, v1=0), before.known).state.shares == {V1: 10_000}


# I2, empty is not truth


def known(*names, version=V1):
    return desired([instance(name, version) for name in names], wish(v1=1), Known()).known


def test_an_empty_answer_takes_nobody_out_of_service():
    decision = desired([], wish(v1=1), known("a", "b", "c"))

    assert serving(decision.state) == {"a", "b", "c"}
    assert "3 of 3" in decision.alarms[0]


def test_the_last_instance_does_not_vanish_unexplained():
    assert serving(desired([], wish(v1=1), known("a")).state) == {"a"}


def test_the_last_one_does_not_vanish_unexplained_either_when_a_reason_took_the_others():
    """It is no majority, but nobody else is left."""
    decision = desired([instance("a", health=Health.MAINTENANCE)], wish(v1=1), known("a", "b"))

    assert serving(decision.state) == {"b"}
    assert "1 of 2" in decision.alarms[0]


def test_a_minority_may_vanish():
    decision = desired([instance("a"), instance("b")], wish(v1=1), known("a", "b", "c"))

    assert serving(decision.state) == {"a", "b"}
    assert decision.alarms == []


@pytest.mark.parametrize("health", [Health.MAINTENANCE, Health.CRITICAL])
def test_maintenance_and_failed_probes_explain(health):
    found = [instance("a"), instance("b", health=health), instance("c", health=health)]

    assert serving(desired(found, wish(v1=1), known("a", "b", "c")).state) >= {"a"}
    assert not any("vanished" in alarm for alarm in desired(found, wish(v1=1), known("a", "b", "c")).alarms)


def test_an_expired_ttl_does_not_explain():
    """Of a canary, because a stable version would fail open anyway."""
    healthy = [instance("a"), *(instance(name, V2) for name in "bcd")]
    before = desired(healthy, wish(v1=90, v2=10), Known())
    lost = [instance("a"), *(instance(name, V2, Health.LOST) for name in "bcd")]

    after = desired(lost, wish(v1=90, v2=10), before.known)

    assert serving(after.state) == {"a", "b", "c", "d"}
    assert "3 of 4" in after.alarms[0]


def test_another_instance_at_its_address_explains():
    """After `down` and `up` the next version may get the port: its answers are not the old one's."""
    before = known("a", "b", "e")
    server = before.state.versions[V1][InstanceId("a")]
    found = [instance("c", V2, port=server.port), instance("d", V2, port=1)]

    after = desired(found, wish(v1=1), before)

    assert serving(after.state) == {"b", "c", "d", "e"}


def test_an_expired_ttl_of_most_canaries_does_not_explain_where_nothing_fails_open():
    before = desired([instance("a"), *(instance(n, V2) for n in "bcd")], wish(v1=90, v2=10), Known())
    found = [instance("a"), *(instance(n, V2, Health.LOST) for n in "bcd")]

    decision = desired(found, wish(v1=90, v2=10), before.known)

    assert serving(decision.state) == {"a", "b", "c", "d"}
    assert "3 of 4" in decision.alarms[0]


def test_a_refused_connection_explains():
    down = frozenset(InstanceId(name) for name in "abc")

    decision = desired([instance("d")], wish(v1=1), known("a", "b", "c"), down=down)

    assert serving(decision.state) == {"d"}


def test_what_was_drained_before_may_vanish():
    before = desired([instance("a"), instance("b", health=Health.MAINTENANCE)], wish(v1=1), known("a", "b"))

    assert serving(desired([instance("a")], wish(v1=1), before.known).state) == {"a"}


def test_a_held_instance_is_not_held_for_ever():
    held = desired([], wish(v1=1), known("a", "b"))

    decision = desired(
        [instance("c")], wish(v1=1), held.known, down=frozenset({InstanceId("a"), InstanceId("b")})
    )

    assert serving(decision.state) == {"c"}


# I4, generations


def test_an_older_generation_is_refused():
    before = desired([instance("a"), instance("b", V2)], wish(9, v1=1), Known())

    after = desired([instance("a"), instance("b", V2)], wish(8, v2=1), before.known)

    assert after.state.shares == {V1: 10_000}
    assert after.known.generation == 9
    assert "older than 9" in after.held[0]


def test_weights_that_lost_their_commit_are_not_believed():
    before = desired([instance("a"), instance("b", V2)], wish(9, v1=90, v2=10), Known())

    after = desired([instance("a"), instance("b", V2)], Wish(), before.known)

    assert after.state.shares == {V1: 9000, V2: 1000}
    assert after.held


# Fail open (I5)


def test_under_half_healthy_everybody_but_maintenance_serves():
    found = [
        instance("a"),
        instance("b", health=Health.CRITICAL),
        instance("c", health=Health.CRITICAL),
        instance("d", health=Health.MAINTENANCE),
    ]

    assert serving(desired(found, wish(v1=1), Known()).state) == {"a", "b", "c"}


def test_at_half_the_healthy_ones_serve_alone():
    found = [instance("a"), instance("b", health=Health.CRITICAL)]

    assert serving(desired(found, wish(v1=1), Known()).state) == {"a"}


def test_a_canary_does_not_fail_open():
    found = [
        instance("a", health=Health.CRITICAL),
        instance("b", health=Health.CRITICAL),
        instance("c", V2, Health.CRITICAL),
    ]

    decision = desired(found, wish(v1=90, v2=10), Known())

    assert serving(decision.state) == {"a", "b"}
    assert decision.state.shares == {V1: 10_000}


# One poisoned instance never stops the others (I3, I7)


@pytest.mark.parametrize(
    "poison",
    [
        {"address": "127.0.0.1:1 check disabled"},
        {"address": "${HOME}"},
        {"address": "unix@/tmp/x"},
        {"address": "0.0.0.0"},
        {"port": 0},
        {"version": VersionName("1;disable server")},
    ],
)
def test_a_poisoned_instance_is_left_out_alone(poison):
    decision = desired([instance("a"), instance("evil", **poison)], wish(v1=1), Known())

    assert serving(decision.state) == {"a"}
    assert "evil" in decision.alarms[0]


@pytest.mark.parametrize("name", ["a;b", "a b", "a\nb", "a\\b", "", "é", "a" * 201])
def test_a_poisoned_id_is_left_out(name):
    assert serving(desired([instance("a"), instance(name)], wish(v1=1), Known()).state) == {"a"}


# Slots


@given(
    st.dictionaries(
        st.integers(0, 30).map(lambda n: VersionName(f"v{n}")),
        st.one_of(st.floats(0, 1e300), st.integers(0, 10**6).map(float)),
    )
)
def test_slots_sum_to_all_and_are_within_one_of_exact(weights):
    shares = slots(weights)

    if not any(weight > 0 for weight in weights.values()):
        assert shares == {}
        return
    assert sum(shares.values()) == 10_000
    largest = max(weights.values())
    scaled = {version: weight / largest for version, weight in weights.items()}
    for version, weight in scaled.items():
        assert abs(shares.get(version, 0) - weight * 10_000 / sum(scaled.values())) <= 1 + 1e-6


def test_slots_are_exact_where_they_can_be():
    assert slots({V1: 99.9, V2: 0.1}) == {V1: 9990, V2: 10}


# The whole


names = st.sampled_from("abcdef")
facts = st.lists(
    st.tuples(names, st.sampled_from([V1, V2]), st.sampled_from(list(Health))),
    unique_by=lambda item: item[0],
    max_size=6,
)
wishes = st.builds(
    lambda generation, v1, v2, maintenance: wish(generation, maintenance=maintenance, v1=v1, v2=v2),
    st.integers(1, 5),
    st.sampled_from([0, 1, 80]),
    st.sampled_from([0, 1, 20]),
    st.booleans(),
)


@given(st.lists(st.tuples(facts, wishes), min_size=1, max_size=6))
def test_whatever_comes_a_share_always_has_somebody_to_serve_it(history):
    carried = Known()
    for found, asked in history:
        instances = [instance(name, version, health) for name, version, health in found]
        decision = desired(instances, asked, carried)
        state = decision.state
        assert sum(state.shares.values()) in (0, 10_000)
        for version in state.shares:
            assert any(server.mode is Mode.SERVE for server in state.versions[version].values())
        for item in instances:
            if item.health is Health.MAINTENANCE:
                assert item.id not in state.serving()
        if carried.state.serving() and not instances:
            assert set(state.serving()) == set(carried.state.serving())
        assert decision.known.generation >= carried.generation
        assert desired(instances, asked, decision.known).state == state, "deciding again changes nothing"
        carried = msgspec.json.decode(msgspec.json.encode(decision.known), type=Known)
        assert carried == decision.known, "what is kept on disk is all of it"


def test_the_sentence_says_who_takes_what():
    state = desired([instance("a"), instance("b", V2)], wish(v1=80, v2=20), Known()).state

    assert sentence(ServiceName("goat"), state) == (
        "goat: 0.0.1 takes 80.00 % on 1 instance, 0.0.2 takes 20.00 % on 1 instance"
    )
    assert sentence(ServiceName("goat"), RoutingState()) == "goat: nobody serves"


def test_server_is_a_value():
    assert Server(id=InstanceId("a"), address="::1", port=1) == Server(
        id=InstanceId("a"), address="::1", port=1
    )


# Who is moved, and who is not


def test_users_come_home_after_an_outage():
    """While the stable version has nobody, others serve its users; then each has what it had before."""
    both = [instance("a"), instance("b", V2)]
    first = desired(both, wish(v1=0, v2=100), Known())
    before = desired(both, wish(2, v1=30, v2=70), first.known)

    away = desired(
        [instance("a", health=Health.CRITICAL), instance("b", V2)], wish(2, v1=30, v2=70), before.known
    )
    after = desired(both, wish(2, v1=30, v2=70), away.known)

    assert totals(away.state.placement) == {V2: 10_000}
    assert after.state.placement == before.state.placement


def test_users_come_home_after_a_maintenance():
    found = [instance("a"), instance("b", V2), instance("c", VersionName("0.0.3"))]
    weighted = wish(3, v1=50, v2=20)
    weighted = msgspec.structs.replace(
        weighted, versions=weighted.versions | {VersionName("0.0.3"): VersionWish(weight=30)}
    )
    before = desired(found, weighted, desired(found, wish(v1=80, v2=20), Known()).known)

    closed = desired(found, wish(4, maintenance=True, v1=0, v2=0), before.known)
    after = desired(found, msgspec.structs.replace(weighted, mark=wish(5).mark), closed.known)

    assert closed.state.placement == ()
    assert after.state.placement == before.state.placement


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_the_placement_has_the_shares(changes):
    now = Known()
    for generation, (weight, a, b) in enumerate(changes):
        health = [Health.PASSING if well else Health.CRITICAL for well in (a, b)]
        found = [instance("a", health=health[0]), instance("b", V2, health=health[1])]
        decision = desired(found, wish(generation + 1, v1=100 - weight, v2=weight), now)
        assert totals(decision.state.placement) == decision.state.shares
        now = decision.known
