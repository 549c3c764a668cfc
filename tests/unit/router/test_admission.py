from __future__ import annotations

import hostile
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.model import (
    VERSIONS_AT_MOST,
    CommitId,
    CommitMark,
    Health,
    Instance,
    InstanceId,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
    endpoint,
    instance_id,
    version_name,
)
from milkrun.router import admission
from milkrun.router.desired import Known, desired


def instance(name="a", version="1", *, address="127.0.0.1", port=8101, health=Health.PASSING, weight=1):
    return Instance(
        id=InstanceId(name),
        service=ServiceName("goat"),
        version=VersionName(version),
        address=address,
        port=port,
        health=health,
        weight=weight,
    )


anything = st.one_of(
    st.text(max_size=20), st.sampled_from([*hostile.NAMES, *hostile.ADDRESSES, "a", "127.0.0.1"])
)


@given(
    st.lists(
        st.builds(
            instance,
            anything,
            anything,
            address=anything,
            port=st.integers(),
            health=st.sampled_from(Health),
            weight=st.integers(),
        )
    )
)
def test_whatever_is_registered_what_is_admitted_has_passed_every_grammar(found):
    alarms = []
    for one in admission.valid(found, alarms):
        assert instance_id(one.id) == one.id
        assert version_name(one.version) == one.version
        assert endpoint(one.address, one.port) == (one.address, one.port)
        assert 1 <= one.weight <= 256
        assert one.id not in admission.RESERVED


def test_one_bad_instance_is_left_out_alone():
    alarms = []

    admitted = admission.valid([instance("a"), instance("b", address="x"), instance("c")], alarms)

    assert [one.id for one in admitted] == ["a", "c"]
    assert len(alarms) == 1


def test_the_data_planes_own_server_cannot_be_registered():
    alarms = []

    assert admission.valid([instance("spill")], alarms) == []
    assert "'spill' is left out" in alarms[0]


def test_of_two_with_one_id_the_healthy_one_stays_whatever_their_order():
    well, ill = instance(address="127.0.0.9"), instance(address="127.0.0.1", health=Health.CRITICAL)
    for found in ([well, ill], [ill, well]):
        alarms = []

        assert [one.address for one in admission.valid(found, alarms)] == ["127.0.0.9"]
        assert "'a' is in the catalog twice" in alarms[0]


def test_more_versions_than_fit_leave_out_those_without_a_weight_and_not_yet_there():
    many = [instance(f"i{number}", f"1.{number:02}") for number in range(40)]
    weighted, there = VersionName("1.39"), VersionName("1.38")
    wish = Wish(versions={weighted: VersionWish(weight=1)})
    alarms = []

    kept = {one.version for one in admission.fitting(many, wish, {there: None}, alarms)}

    assert len(kept) == VERSIONS_AT_MOST
    assert {weighted, there} <= kept
    assert "40 versions are registered and 24 fit" in alarms[0]
    assert admission.fitting(many[:24], wish, {}, []) == many[:24]


def test_a_thousand_bad_instances_are_one_story():
    decision = desired([instance(f"b{number}", address="x") for number in range(1_000)], Wish(), Known())

    assert len(decision.alarms) == admission.ALARMS_AT_MOST + 1
    assert "980 more" in decision.alarms[-1]


def test_who_is_taken_out_of_service_goes_even_if_its_other_words_are_refused():
    """Else the brake would hold it: an instance that vanished, as far as one can read."""
    mark = CommitMark(commit=CommitId("c"), generation=1)
    known = desired([instance("a"), instance("b")], Wish(mark=mark), Known()).known
    resting = [instance(name, address="nonsense", health=Health.MAINTENANCE) for name in ("a", "b")]

    decision = desired([*resting, instance("c")], Wish(mark=mark), known)

    assert set(decision.state.serving()) == {"c"}


def test_the_grammars_refuse_what_is_empty():
    for refuse in (instance_id, version_name):
        try:
            refuse("")
        except InputRefused:
            continue
        raise AssertionError(refuse)
