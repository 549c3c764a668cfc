from __future__ import annotations

from milkrun.registry import commands
from milkrun.registry.nouns import Check, Node, Weights


def targets(farm, tag: str = "") -> list[tuple[str, int]]:
    view = farm.zone.service("goat")
    tagged = view.by_tag.get(tag) if view else None
    return sorted((str(each.host.packed[-1]), each.weight) for each in tagged.endpoints) if tagged else []


def test_an_instance_counts_as_its_checks_say(farm):
    farm.goat(weights=Weights(10, 3))
    assert targets(farm) == [("1", 10)]
    farm.check("passing")
    assert targets(farm) == [("1", 10)]
    farm.check("warning")
    assert targets(farm) == [("1", 3)]
    farm.check("critical")
    assert targets(farm) == []
    farm.check("passing")
    assert targets(farm) == [("1", 10)]


def test_a_nodes_check_speaks_of_all_its_instances(farm):
    farm.node("shed", "10.0.0.9")
    farm.goat("goat-1", "10.0.0.1", on="shed", weights=Weights(10, 3))
    farm.goat("goat-2", "10.0.0.2")
    farm.check("warning", "", on="shed")
    assert targets(farm) == [("1", 3), ("2", 1)]
    farm.check("critical", "", on="shed")
    assert targets(farm) == [("2", 1)]


def test_maintenance_takes_an_instance_out(farm):
    farm.goat("goat-1", "10.0.0.1")
    farm.goat("goat-2", "10.0.0.2")
    farm.do(commands.MaintainService("goat-1", enable=True, reason="milking"))
    assert targets(farm) == [("2", 1)]
    farm.do(commands.MaintainService("goat-1", enable=False, reason=""))
    assert targets(farm) == [("1", 1), ("2", 1)]
    farm.do(commands.MaintainNode(enable=True, reason="new roof"))
    assert targets(farm) == []


def test_a_changed_instance_is_seen_at_the_next_question(farm):
    farm.goat("goat-1", "10.0.0.1", tags=["v1"])
    assert targets(farm, "v1") == [("1", 1)]
    farm.goat("goat-1", "10.0.0.2", tags=["V2"])
    assert (targets(farm, "v1"), targets(farm, "v2")) == ([], [("2", 1)])
    farm.goat("goat-1", "10.0.0.2", service="cow")
    assert farm.zone.service("goat") is None
    assert farm.zone.service("cow")
    farm.drop("goat-1")
    assert farm.zone.service("cow") is None


def test_a_moved_node_moves_the_instances_that_have_no_address_of_their_own(farm):
    farm.node("shed", "10.0.0.7")
    farm.goat("goat-1", "", on="shed")
    assert targets(farm) == [("7", 1)]
    farm.node("shed", "10.0.0.8")
    assert targets(farm) == [("8", 1)]


def test_a_view_is_kept_while_only_others_change(farm):
    farm.goat()
    view = farm.zone.service("goat")
    farm.goat("cow-1", service="cow")
    farm.check("critical", "cow-1")
    farm.do(commands.KvPut("a", b"1", 0))
    assert farm.zone.service("goat") is view
    farm.check("passing")
    assert farm.zone.service("goat") is not view


def test_what_did_not_change_is_not_made_anew(farm):
    for number in range(10):
        farm.goat(f"goat-{number}", f"10.0.0.{number}")
    before = {id(each) for each in farm.zone.service("goat").by_tag[""].endpoints}
    farm.check("warning", "goat-3")
    after = {id(each) for each in farm.zone.service("goat").by_tag[""].endpoints}
    assert len(before & after) >= 9


def test_names_of_services_that_are_gone_take_no_memory(farm):
    for number in range(50):
        farm.goat("goat-1", service=f"goat-{number}")
        assert farm.zone.service(f"goat-{number}")
    assert len(farm.zone._views) == len(farm.zone._made) == 1


def test_letters_do_not_matter_and_both_spellings_are_one_service(farm):
    farm.goat("goat-1", "10.0.0.1", service="Goat")
    farm.goat("goat-2", "10.0.0.2", service="goat")
    assert targets(farm) == [("1", 1), ("2", 1)]


def test_a_tag_with_dots_has_names_between(farm):
    farm.goat(tags=["version=0.0.1"])
    assert farm.zone.service("goat").between == {"0.1", "1"}


def test_nodes_are_found_by_name_whatever_the_letters(farm):
    farm.node("Host.Name", "10.0.0.9")
    assert farm.zone.node("host.name").address == "10.0.0.9"
    assert farm.zone.between_nodes("name")
    farm.do(commands.CatalogDeregister(node="Host.Name", service_id="", check_id=""))
    assert farm.zone.node("host.name") is None
    assert not farm.zone.between_nodes("name")


def test_who_has_an_address(farm):
    farm.node("shed", "10.0.0.9")
    farm.goat("goat-1", "2001:DB8::1")
    assert farm.zone.named(bytes([10, 0, 0, 9])) == (b"shed", b"node", b"dc1", b"consul")
    assert farm.zone.named(bytes.fromhex("20010db8") + bytes(11) + b"\1") == (
        b"goat",
        b"service",
        b"dc1",
        b"consul",
    )
    assert farm.zone.named(bytes([10, 0, 0, 8])) == ()


def test_a_check_of_a_vanished_instance_hurts_nobody(farm):
    farm.goat()
    farm.check("critical")
    farm.drop("goat-1")
    check = Check(node="n1", check_id="late", name="late", status="passing")
    farm.do(
        commands.CatalogRegister(
            name="n1", node=Node(id="1", node="n1", address="127.0.0.1"), service=None, checks=[check]
        )
    )
    assert farm.zone.service("goat") is None
