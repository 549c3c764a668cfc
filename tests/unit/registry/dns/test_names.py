from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.registry.dns.names import (
    AddressAsked,
    NodeAsked,
    Place,
    ReverseAsked,
    ServiceAsked,
    address_name,
    asked,
)

LABELS = st.binary(min_size=1, max_size=63)
NAMES = st.lists(
    LABELS | st.sampled_from([b"service", b"node", b"addr", b"dc1", b"consul", b"arpa", b"_tcp", b"query"]),
    max_size=8,
).map(tuple)
TAGS = st.lists(st.from_regex(rb"[a-z0-9=-]{1,20}", fullmatch=True), min_size=1, max_size=4)


def read(text: str):
    return asked(tuple(text.encode().split(b".")) if text else ())


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("goat.service.consul", ServiceAsked("goat")),
        ("GOAT.Service.Consul", ServiceAsked("goat")),
        ("goat.service.dc1.consul", ServiceAsked("goat")),
        ("v1.goat.service.consul", ServiceAsked("goat", "v1")),
        ("version=0.0.1.goat.service.dc1.consul", ServiceAsked("goat", "version=0.0.1")),
        ("_goat._tcp.service.consul", ServiceAsked("goat")),
        ("_goat._TCP.consul", ServiceAsked("goat")),
        ("_goat._v1.service.dc1.consul", ServiceAsked("goat", "v1")),
        ("_goat._v1.dc1.consul", ServiceAsked("goat", "v1")),
        ("_goat.v1.service.consul", ServiceAsked("v1", "_goat")),
        ("x._goat._tcp.service.consul", ServiceAsked("_tcp", "x._goat")),
        ("service.service.consul", ServiceAsked("service")),
        ("dc1.service.consul", ServiceAsked("dc1")),
        ("n1.node.consul", NodeAsked("n1")),
        ("host.name.node.dc1.consul", NodeAsked("host.name")),
        ("7f000001.addr.dc1.consul", AddressAsked(bytes([127, 0, 0, 1]))),
        ("7F000001.ADDR.elsewhere.consul", AddressAsked(bytes([127, 0, 0, 1]))),
        ("1.0.0.127.in-addr.arpa", ReverseAsked(bytes([127, 0, 0, 1]))),
        ("1." + "0." * 30 + "f.ip6.arpa", ReverseAsked(b"\xf0" + bytes(14) + b"\x01")),
        ("consul", Place.APEX),
        ("service.consul", Place.BETWEEN),
        ("service.dc1.consul", Place.BETWEEN),
        ("node.consul", Place.BETWEEN),
        ("dc1.consul", Place.BETWEEN),
        ("_tcp.service.consul", Place.BETWEEN),
        ("_tcp.consul", Place.BETWEEN),
        ("goat.service.dc2.consul", Place.NOTHING),
        ("goat.service.dc1.dc1.consul", Place.NOTHING),
        ("goat.consul", Place.NOTHING),
        ("goat.connect.consul", Place.NOTHING),
        ("goat.service.query.consul", Place.NOTHING),
        ("7f0001.addr.consul", Place.NOTHING),
        ("7f 00 01.addr.consul", Place.NOTHING),
        ("7f00000g.addr.consul", Place.NOTHING),
        ("a.7f000001.addr.consul", Place.NOTHING),
        ("göat.service.consul", Place.NOTHING),
        ("", Place.OUTSIDE),
        ("consul.example", Place.OUTSIDE),
        ("goat.service.consul.example", Place.OUTSIDE),
        ("0.0.127.in-addr.arpa", Place.OUTSIDE),
        ("256.0.0.127.in-addr.arpa", Place.OUTSIDE),
        ("a.b.c.d.e.arpa", Place.OUTSIDE),
    ],
)
def test_what_a_name_asks_for(name: str, means):
    assert read(name) == means


@settings(deadline=None)
@given(NAMES)
def test_any_name_means_something_and_letters_do_not_matter(name):
    means = asked(name)
    assert asked(tuple(label.upper() for label in name)) == means
    assert asked(tuple(label.lower() for label in name)) == means


@settings(deadline=None)
@given(NAMES)
def test_only_our_zone_and_whole_reversed_addresses_are_answered(name):
    if asked(name) is not Place.OUTSIDE:
        assert name[-1].lower() in (b"consul", b"arpa")


@settings(deadline=None)
@given(TAGS)
def test_a_tag_is_read_back_whole_whatever_its_dots(tag):
    expected = ServiceAsked("goat", b".".join(tag).decode())
    for suffix in ((b"consul",), (b"dc1", b"consul")):
        assert asked((*tag, b"goat", b"service", *suffix)) == expected


@settings(deadline=None)
@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_an_addresss_name_asks_for_the_address(packed):
    assert asked(address_name(packed, "dc1")) == AddressAsked(packed)
