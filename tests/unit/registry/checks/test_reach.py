from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.registry.checks.reach import Reach, parse

V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
DOOR = ("10.0.0.1", 8500)
EVERYTHING = Reach(allowed=parse(("0.0.0.0/0", "::/0")), door=DOOR)
DEFAULT = Reach(door=DOOR)

NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe::1",
    "2001:0:1:2:3:4:5601:5601",
]


@pytest.mark.parametrize("text", NEVER)
def test_what_no_operator_can_permit(text):
    assert EVERYTHING.refusal(ip_address(text), 80, text)


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_reached(text):
    assert not DEFAULT.refusal(ip_address(text), 80, "")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "::ffff:10.1.2.3"),
        ("fd00::1", "fd00:0::1"),
    ],
)
def test_the_own_address_is_reached(text, own):
    assert not DEFAULT.refusal(ip_address(text), 80, own)


@pytest.mark.parametrize("own", ["", "10.1.2.4", "web.internal", "10.1.2.3.", "0x0a010203", "10.1.2.3:80"])
def test_no_other_address_is(own):
    refusal = DEFAULT.refusal(ip_address("10.1.2.3"), 80, own)
    assert "neither the service's own address" in refusal
    assert "--check-allow 10.1.2.3/32" in refusal


def test_the_operator_permits_a_network():
    reach = Reach(allowed=parse(("10.1.0.0/16", "fd00:1::/32")), door=DOOR)
    assert not reach.refusal(ip_address("10.1.255.255"), 80, "")
    assert not reach.refusal(ip_address("::ffff:10.1.0.0"), 80, "")
    assert not reach.refusal(ip_address("fd00:1::9"), 80, "")
    assert reach.refusal(ip_address("10.2.0.0"), 80, "")
    assert reach.refusal(ip_address("fd00:2::"), 80, "")


@pytest.mark.parametrize("text", ["127.0.0.1", "127.1.1.1", "::1", "10.0.0.1", "::ffff:10.0.0.1"])
def test_the_registry_is_not_asked_about_itself(text):
    assert "this registry's own" in EVERYTHING.refusal(ip_address(text), 8500, "10.0.0.1")
    assert not EVERYTHING.refusal(ip_address(text), 8501, "10.0.0.1")


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0.1/16", "hello", "", "169.254.0.0/16", "169.254.169.254/32", "fe80::/64"]
)
def test_a_network_that_means_nothing_is_refused(text):
    with pytest.raises(InputRefused):
        parse((text,))


def test_a_network_may_be_spelled_in_any_way():
    assert parse(("FD00:0::/32", "10.1.2.3", "10.0.0.0/255.0.0.0")) == tuple(
        ip_network(text) for text in ("fd00::/32", "10.1.2.3/32", "10.0.0.0/8")
    )


def test_who_names_an_address_inside_a_network_is_asked_which_he_means():
    with pytest.raises(InputRefused) as refused:
        parse(("10.0.0.1/8",))
    assert refused.value.remedy == "write 10.0.0.0/8, or 10.0.0.1/32 for that address alone"


@given(V4)
def test_a_mapped_address_is_judged_as_what_it_is(address):
    mapped = IPv6Address(f"::ffff:{address}")
    for reach in (DEFAULT, EVERYTHING):
        assert reach.refusal(mapped, 80, "") == reach.refusal(address, 80, "")


@given(
    st.integers(0, 0xFFFF).map(lambda low: IPv4Address(0xA9FE0000 + low)),
    st.sampled_from([DEFAULT, EVERYTHING]),
)
def test_no_spelling_of_a_link_local_address_is_reached(address, reach):
    number = int(address)
    spellings = [
        address,
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address(number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
    ]
    for each in spellings:
        assert reach.refusal(each, 80, str(each)), each


@given(st.one_of(V4, V6))
def test_by_default_only_the_own_address_and_loopback(address):
    permitted = not DEFAULT.refusal(address, 80, "10.1.2.3")
    plain = getattr(address, "ipv4_mapped", None) or address
    assert permitted == (plain in ip_network("127.0.0.0/8") or str(plain) in ("::1", "10.1.2.3"))
