from __future__ import annotations

import struct

import dns.flags
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.registry.dns.answers import Answers
from milkrun.registry.nouns import Weights


def additional(message) -> dict[str, str]:
    return {rrset.name.to_text(): rrset[0].to_text() for rrset in message.additional}


def test_srv_names_the_address_and_brings_it_along(farm):
    farm.goat("goat-1", "10.0.0.1", port=8101, weights=Weights(10, 3))
    farm.goat("goat-2", "", port=8102)
    message = farm.ask("goat.service.consul", "SRV")
    assert farm.records("goat.service.consul", "SRV") == [
        "SRV 1 1 8102 n1.node.dc1.consul.",
        "SRV 1 10 8101 0a000001.addr.dc1.consul.",
    ]
    assert additional(message) == {
        "0a000001.addr.dc1.consul.": "10.0.0.1",
        "n1.node.dc1.consul.": "127.0.0.1",
    }
    for target in ("n1.node.dc1.consul", "0a000001.addr.dc1.consul"):
        assert farm.records(target) == [f"A {additional(message)[target + '.']}"]


@pytest.mark.parametrize(
    ("weight", "scale", "told"), [(10, 256, 2560), (256, 256, 65535), (65535, 1, 65535), (1, 1, 1)]
)
def test_weights_are_scaled_and_never_overflow(farm, weight: int, scale: int, told: int):
    farm.goat(weights=Weights(weight, 1))
    farm.answers = Answers(farm.zone, farm.pick, srv_weight_scale=scale)
    assert farm.records("goat.service.consul", "SRV") == [f"SRV 1 {told} 8101 0a000001.addr.dc1.consul."]


def test_a_host_is_found_by_any_of_its_types(farm):
    farm.goat("goat-1", "10.0.0.1")
    farm.goat("goat-2", "2001:db8::1")
    assert farm.records("goat.service.consul", "A") == ["A 10.0.0.1"]
    assert farm.records("goat.service.consul", "AAAA") == ["AAAA 2001:db8::1"]
    assert farm.records("goat.service.consul", "ANY") == ["A 10.0.0.1", "AAAA 2001:db8::1"]
    assert farm.records("goat.service.consul", "MX") == ["NOERROR"]


def test_two_instances_at_one_place_are_one_record(farm):
    for number in (1, 2):
        farm.goat(f"goat-{number}", "10.0.0.1", port=8101)
    farm.goat("goat-3", "10.0.0.1", port=8102)
    assert farm.records("goat.service.consul", "A") == ["A 10.0.0.1"]
    assert len(farm.records("goat.service.consul", "SRV")) == 2
    counts = struct.unpack_from("!6H", farm.bytes("goat.service.consul", "SRV"))
    assert counts[3:] == (2, 0, 1), "the address that both targets have comes once"


@pytest.mark.parametrize("kind", ["A", "SRV"])
@pytest.mark.parametrize("limit", [512, 1232])
def test_the_shortest_records_are_counted_too(farm, kind: str, limit: int):
    """The picked ones never fill less than the room, or what was not picked would be cut in silence."""
    names = kind == "SRV"
    for number in range(300):
        farm.goat(
            f"g{number}",
            chr(97 + number % 26) if names else f"10.0.{number // 256}.{number % 256}",
            port=number,
        )
    message = farm.ask("goat.service.consul", kind, limit=limit)
    assert message.flags & dns.flags.TC
    assert len(message.answer[0]) >= (limit - 60) // (21 if names else 16)


def test_many_registrations_at_one_place_hide_no_other(farm):
    for number in range(300):
        farm.goat(f"goat-{number}", "10.0.0.1")
    farm.goat("other", "10.0.0.2")
    for kind in ("A", "SRV"):
        message = farm.ask("goat.service.consul", kind, limit=512)
        assert len(message.answer[0]) == 2
        assert not message.flags & dns.flags.TC


def test_the_order_is_another_each_time(farm):
    for number in range(20):
        farm.goat(f"goat-{number}", f"10.0.0.{number}")
    firsts = {farm.ask("goat.service.consul").answer[0][0].to_text() for _ in range(30)}
    assert len(firsts) > 5


def test_no_routable_instance_is_no_such_name_and_another_type_is_no_data(farm):
    farm.goat()
    assert farm.records("goat.service.consul", "AAAA") == ["NOERROR"]
    farm.check("critical")
    for kind in ("A", "SRV", "AAAA"):
        assert farm.records("goat.service.consul", kind) == ["NXDOMAIN"]


def test_every_no_brings_the_soa_whose_serial_moves_with_the_catalog(farm):
    def serial(name: str) -> int:
        return farm.ask(name).authority[0][0].serial

    first = serial("none.service.consul")
    assert serial("consul") == serial("service.consul") == first
    farm.goat()
    assert serial("none.service.consul") > first


def test_names_above_a_dotted_tag_or_node_exist(farm):
    farm.goat(tags=["version=0.0.1"])
    farm.node("host.name", "10.0.0.9")
    assert farm.records("version=0.0.1.goat.service.consul") == ["A 10.0.0.1"]
    for between in (
        "1.goat.service.consul",
        "0.1.goat.service.consul",
        "name.node.consul",
        "_goat.service.consul",
    ):
        assert farm.records(between) == ["NOERROR"]
    for missing in ("0.0.1.goat.service.consul", "2.goat.service.consul", "host.node.consul"):
        assert farm.records(missing) == ["NXDOMAIN"]


def test_an_instance_known_by_name_is_an_alias_and_one_in_the_zone_is_followed(farm):
    farm.goat("goat-1", "goats.example.com")
    assert farm.records("goat.service.consul") == ["CNAME goats.example.com."]
    farm.goat("cow-1", "10.0.0.5", service="cow")
    farm.goat("goat-1", "cow.service.consul")
    assert farm.records("goat.service.consul") == ["A 10.0.0.5", "CNAME cow.service.consul."]
    assert additional(farm.ask("goat.service.consul", "SRV")) == {"cow.service.consul.": "10.0.0.5"}
    farm.goat("goat-2", "10.0.0.6")
    assert farm.records("goat.service.consul") == ["A 10.0.0.6"]
    assert farm.records("goat.service.consul", "AAAA") == ["NOERROR"]


def test_aliases_in_a_circle_end(farm):
    farm.goat("goat-1", "cow.service.consul")
    farm.goat("cow-1", "goat.service.consul", service="cow")
    assert len(farm.records("goat.service.consul")) <= 20
    assert farm.ask("goat.service.consul", "SRV").rcode() == dns.rcode.NOERROR


@pytest.mark.parametrize(
    "address", ["not a host", "a" * 64, "x." * 130 + "x", "fe80::1%eth0", "-", ".", "a..b", "\0", "ü.de"]
)
def test_an_address_that_dns_cannot_tell_is_left_out(farm, address: str):
    farm.goat("goat-1", address)
    assert farm.records("goat.service.consul", "SRV") == ["NXDOMAIN"]
    farm.goat("goat-2", "10.0.0.2")
    assert farm.records("goat.service.consul") == ["A 10.0.0.2"]


@pytest.mark.parametrize("node", ["two words", "x" * 64, "a." * 120 + "a", "höst", 'quote"', "back\\slash"])
def test_a_node_with_a_strange_name_is_told_by_its_address(farm, node: str):
    farm.node(node, "10.0.0.9")
    farm.goat("goat-1", "", on=node)
    assert farm.records("goat.service.consul", "SRV") == ["SRV 1 1 8101 0a000009.addr.dc1.consul."]


def test_a_node_tells_its_metadata_to_who_asks(farm):
    long = "y" * 300
    farm.node("shed", "10.0.0.9", meta={"rack": "r1", "rfc1035-note": "plain", "long": long})
    assert farm.records("shed.node.consul") == ["A 10.0.0.9"]
    assert farm.records("shed.node.consul", "TXT") == [
        f'TXT "long={long[:250]}" "{long[250:]}"',
        'TXT "plain"',
        'TXT "rack=r1"',
    ]


def test_the_zone_names_its_server(farm):
    assert farm.records("consul", "NS") == ["NS n1.node.dc1.consul."]
    assert additional(farm.ask("consul", "NS")) == {"n1.node.dc1.consul.": "127.0.0.1"}


def test_other_zones_are_refused_without_authority(farm):
    for name in ("example.com", "9.9.9.9.in-addr.arpa", "."):
        message = farm.ask(name)
        assert (message.rcode(), message.flags & dns.flags.AA) == (dns.rcode.REFUSED, 0)


@settings(deadline=None)
@given(
    addresses=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=120, unique=True),
    limit=st.integers(512, 9000),
    kind=st.sampled_from(["A", "SRV", "ANY"]),
    name=st.sampled_from(["goat.service.consul", "_GOAT._tcp.service.dc1.consul", "GoAt.SeRvIcE.CoNsUl"]),
)
def test_what_is_cut_says_so_and_is_whole_where_there_is_room(make_farm, addresses, limit, kind, name):
    farm = make_farm()
    for number, address in enumerate(addresses):
        farm.goat(f"goat-{number}", ".".join(str(part) for part in address.to_bytes(4, "big")), port=number)
    cut, whole = farm.ask(name, kind, limit=limit), farm.ask(name, kind)
    some, all_of_it = (
        {each.to_text() for rrset in message.answer for each in rrset} for message in (cut, whole)
    )
    assert len(all_of_it) == len(addresses)
    assert not whole.flags & dns.flags.TC
    assert some <= all_of_it
    assert some
    assert bool(cut.flags & dns.flags.TC) == (some != all_of_it)
    for message in (cut, whole):
        targets = {
            each.target for rrset in message.answer for each in rrset if rrset.rdtype == dns.rdatatype.SRV
        }
        assert {rrset.name for rrset in message.additional} == targets
