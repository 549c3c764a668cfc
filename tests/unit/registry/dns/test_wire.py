from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milkrun.registry.dns import wire
from milkrun.registry.dns.records import Group, Host, Rcode, Record, Reply, Type, address, service, text

QUERY = dns.message.make_query("Goat.Service.Consul", "SRV", use_edns=0, payload=4096).to_wire()
LABELS = st.binary(min_size=1, max_size=63)
NAMES = st.lists(LABELS, max_size=5).map(tuple).filter(lambda name: sum(map(len, name)) + len(name) < 255)
FEW = st.sampled_from([(b"a",), (b"b", b"a"), (b"c", b"b", b"a"), (b"C", b"b", b"a"), (b"goat", b"consul")])
OWNERS = FEW | NAMES
RECORDS = st.one_of(
    st.builds(address, OWNERS, st.builds(Host, packed=st.binary(min_size=4, max_size=4))),
    st.builds(address, OWNERS, st.builds(Host, packed=st.binary(min_size=16, max_size=16))),
    st.builds(address, OWNERS, st.builds(Host, name=OWNERS)),
    st.builds(service, OWNERS, st.integers(0, 65535), st.integers(0, 65535), OWNERS),
    st.builds(text, OWNERS, st.text(max_size=300)),
    st.builds(lambda owner, to: Record(owner, Type.NS, (to,)), OWNERS, OWNERS),
)
REPLIES = st.builds(
    lambda answer, additional, rcode: Reply(answer=answer, additional=tuple(additional), rcode=rcode),
    st.lists(
        st.builds(lambda record, more: Group(record, tuple(more)), RECORDS, st.lists(RECORDS, max_size=2)),
        max_size=30,
    ),
    st.lists(RECORDS.filter(lambda record: record.type is Type.A and len(record.owner) < 4), max_size=1),
    st.sampled_from([Rcode.NOERROR, Rcode.NXDOMAIN]),
)


def rows(section) -> list[tuple[tuple[bytes, ...], int, bytes]]:
    return [(rrset.name.labels[:-1], rrset.rdtype, each.to_wire()) for rrset in section for each in rrset]


def row(record: Record) -> tuple[tuple[bytes, ...], int, bytes]:
    data = b"".join(
        part if isinstance(part, bytes) else b"".join(bytes([len(label)]) + label for label in part) + b"\0"
        for part in record.data
    )
    return record.owner, int(record.type), data


def test_a_question_is_read_in_its_own_letters():
    query = wire.read(QUERY)
    assert query.name == (b"Goat", b"Service", b"Consul")
    assert (query.type, query.edns, query.payload, query.fault) == (Type.SRV, True, 4096, None)


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_read_or_refused(data):
    query = wire.read(data)
    if query is not None:
        assert len(wire.write(query, Reply(rcode=Rcode.REFUSED), 512)) <= 512


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(QUERY) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(QUERY)),
)
def test_a_damaged_question_is_read_or_refused(changes, end):
    data = bytearray(QUERY)
    for at, value in changes:
        data[at] = value
    query = wire.read(bytes(data[:end]))
    if query is not None and query.asks:
        dns.message.from_wire(wire.write(query, Reply(), 512))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c" + b"\0\1\0\1",  # a name that points to itself
        struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\xc0\xff" + b"\0\1\0\1",  # one that points behind the end
        struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\x7fa\0\0\1\0\1",  # a label type that is not in use
        struct.pack("!6H", 1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",  # a name too long
        struct.pack("!6H", 1, 0, 1, 1, 0, 0) + b"\1a\0\0\1\0\1",  # answers in a question
        struct.pack("!6H", 1, 0, 1, 0, 0, 40) + b"\1a\0\0\1\0\1",  # more records than a question has
        QUERY + bytes(wire.QUERY_AT_MOST),  # longer than any question
    ],
)
def test_a_broken_question_is_a_format_error(data: bytes):
    assert wire.read(data).fault is Rcode.FORMERR


def test_an_answer_is_never_answered():
    assert wire.read(QUERY[:2] + b"\x80\x00" + QUERY[4:]) is None
    assert wire.read(QUERY[:11]) is None


def test_a_later_edns_is_told_which_one_we_speak():
    data = dns.message.make_query("goat.service.consul", "A", use_edns=1).to_wire()
    query = wire.read(data)
    answer = dns.message.from_wire(wire.write(query, Reply(rcode=query.fault), 512))
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)


@settings(deadline=None)
@given(REPLIES, st.integers(512, 4000) | st.just(65535), st.booleans())
def test_what_is_written_is_what_others_read(reply, limit, edns):
    """Judged by dnspython: every record whole, cut only from the end, told when cut, never too long."""
    query = wire.Query(id=7, flags=wire.Flag.RD, name=(b"goat", b"consul"), type=1, edns=edns)
    data = wire.write(query, reply, limit)
    assert len(data) <= limit
    message = dns.message.from_wire(data, one_rr_per_rrset=True)
    written = len(message.answer)
    assert rows(message.answer) == [row(group.record) for group in reply.answer[:written]]
    later = [record for group in reply.answer[:written] for record in group.additional]
    assert rows(message.additional) == [row(record) for record in (*later, *reply.additional)]
    assert bool(message.flags & dns.flags.TC) == (written < len(reply.answer))
    assert written == len(reply.answer) or limit < 65535
    assert (message.rcode(), message.edns) == (int(reply.rcode), 0 if edns else -1)
    assert message.flags & dns.flags.RD


@pytest.mark.parametrize("limit", range(512, 544))
def test_room_is_left_for_what_comes_after_the_answers(limit: int):
    owner = (b"goat", b"service", b"consul")
    groups = [Group(address(owner, Host(packed=bytes(4)))) for _ in range(50)]
    after = address((b"elsewhere", b"consul"), Host(packed=bytes(4)))
    for edns, additional in ((True, ()), (False, (after,)), (True, (after,))):
        query = wire.Query(id=7, flags=0, name=owner, type=1, edns=edns)
        assert (
            limit - 32 < len(wire.write(query, Reply(answer=groups, additional=additional), limit)) <= limit
        )


def test_names_are_written_once():
    owner = (b"goat", b"service", b"consul")
    groups = [Group(address(owner, Host(packed=bytes(4)))) for _ in range(50)]
    query = wire.Query(id=7, flags=0, name=owner, type=1)
    assert len(wire.write(query, Reply(answer=groups), 65535)) == 12 + 21 + 4 + 50 * 16


def test_an_srv_target_has_no_pointer_in_it():
    """RFC 2782: name compression is not to be used for this field."""
    target = (b"n1", b"node", b"consul")
    query = wire.Query(id=7, flags=0, name=target, type=33)
    group = Group(service(target, 1, 80, target))
    assert b"\2n1\4node\6consul\0" in wire.write(query, Reply(answer=[group]), 512)[30:]
