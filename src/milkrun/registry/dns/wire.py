"""Questions from bytes and answers to bytes. No I/O.

What strangers send is read by dnspython. Answers are written here: they hold few types, and to write them
costs a tenth of the time that a general library takes, in which the registry would do nothing else.
"""

from __future__ import annotations

import struct
from enum import IntFlag

import dns.exception
import dns.message
import msgspec

from milkrun.registry.dns.records import Name, Rcode, Record, Reply, Type

HEADER = struct.Struct("!6H")
PLAIN_AT_MOST = 512
"""How long an answer over UDP may be for a client that does not say. Source: RFC 1035 §4.2.1."""
OUR_PAYLOAD = 1232
QUERY_AT_MOST = 4096
_IN, _ANY_CLASS, _OPT = 1, 255, 41
_TRANSFERS = (251, 252)
_POINTER = 0xC000
_POINTER_AT_MOST = 0x3FFF
_OPCODE = 0x7800


class Flag(IntFlag):
    """The flags of the header. Source: RFC 1035 §4.1.1."""

    QR = 0x8000
    AA = 0x0400
    TC = 0x0200
    RD = 0x0100


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `payload` is how much the client takes over UDP. `fault` is why there is no answer to it."""

    id: int
    flags: int
    name: Name = ()
    type: int = 0
    class_: int = _IN
    asks: bool = True
    edns: bool = False
    payload: int = PLAIN_AT_MOST
    fault: Rcode | None = None


def read(data: bytes) -> Query | None:
    """The question; None for what may not be answered at all: no header, or an answer itself."""
    if len(data) < HEADER.size:
        return None
    ident, flags, questions, answers, authority, additional = HEADER.unpack_from(data)
    if flags & Flag.QR:
        return None
    bare = Query(id=ident, flags=flags, asks=False)
    if flags & _OPCODE:
        return msgspec.structs.replace(bare, fault=Rcode.NOTIMP)
    # As few as a query ever has: what is not there need not be parsed.
    wrong = questions != 1 or answers or authority or additional > 2 or len(data) > QUERY_AT_MOST
    if wrong:
        return msgspec.structs.replace(bare, fault=Rcode.FORMERR)
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except dns.exception.DNSException:
        return msgspec.structs.replace(bare, fault=Rcode.FORMERR)
    question = message.question[0]
    class_, kind = int(question.rdclass), int(question.rdtype)
    return Query(
        id=ident,
        flags=flags,
        name=question.name.labels[:-1],
        type=kind,
        class_=class_,
        edns=message.edns >= 0,
        payload=max(PLAIN_AT_MOST, message.payload) if message.edns >= 0 else PLAIN_AT_MOST,
        fault=_fault(message.edns, class_, kind),
    )


def _fault(edns: int, class_: int, kind: int) -> Rcode | None:
    if edns > 0:
        return Rcode.BADVERS
    if class_ not in (_IN, _ANY_CLASS):
        return Rcode.REFUSED
    return Rcode.NOTIMP if kind in _TRANSFERS else None


def write(query: Query, reply: Reply, limit: int) -> bytes:
    """The answer in at most `limit` bytes (512 or more); what was cut is told by the flag TC."""
    writer = _Writer(limit)
    if query.asks:
        writer.question(query)
    options = _options(reply.rcode) if query.edns else b""
    writer.keep_room(len(options), (*reply.authority, *reply.additional))
    later = [*reply.authority]
    written = 0
    cut = False
    for group in reply.answer:
        if not writer.fits(group.record, group.additional):
            cut = True
            break
        writer.record(group.record)
        later += group.additional
        written += 1
    later += reply.additional
    for record in later:
        writer.record(record)
    flags = Flag.QR | (query.flags & (_OPCODE | Flag.RD)) | (reply.rcode & 0xF)
    flags |= Flag.AA if reply.authoritative else 0
    flags |= Flag.TC if cut else 0
    authority = len(reply.authority)
    additional = len(later) - authority + query.edns
    HEADER.pack_into(writer.out, 0, query.id, flags, query.asks, written, authority, additional)
    return bytes(writer.out + options)


def _options(rcode: Rcode) -> bytes:
    """The OPT record; it carries the upper half of the rcode. Source: RFC 6891 §6.1.2."""
    return struct.pack("!BHHBBHH", 0, _OPT, OUR_PAYLOAD, rcode >> 4, 0, 0, 0)


class _Writer:
    """A message in the making. A name that was written before, in the same letters, is pointed to."""

    def __init__(self, limit: int) -> None:
        self.out = bytearray(HEADER.size)
        self._room = limit
        self._seen: dict[Name, int] = {}

    def question(self, query: Query) -> None:
        """The question is repeated, in its own letters."""
        self._name(query.name, shorten=True)
        self.out += struct.pack("!HH", query.type, query.class_)

    def keep_room(self, options: int, after: tuple[Record, ...]) -> None:
        """Room is left for what comes after the answers."""
        self._room -= options + sum(self._size(record) for record in after)

    def fits(self, record: Record, additional: tuple[Record, ...]) -> bool:
        """Whether a record and its additional ones have room; then room is left for the latter."""
        size = self._size(record)
        # A name in the record can be pointed to, if it does not stand too far behind the start.
        named = record.data if len(self.out) + size <= _POINTER_AT_MOST else ()
        after = sum(self._size(each, named) for each in additional)
        if len(self.out) + size + after > self._room:
            return False
        self._room -= after
        return True

    def record(self, record: Record) -> None:
        """The record is written, with a time to live of 0: each client asks each time."""
        self._name(record.owner, shorten=True)
        self.out += struct.pack("!HHIH", record.type, _IN, 0, 0)
        start = len(self.out)
        for part in record.data:
            if isinstance(part, bytes):
                self.out += part
            else:
                # RFC 2782 forbids pointers in SRV records; in these other types every reader expects them.
                self._name(part, shorten=record.type is not Type.SRV)
        struct.pack_into("!H", self.out, start - 2, len(self.out) - start)

    def _name(self, name: Name, *, shorten: bool) -> None:
        out, seen = self.out, self._seen
        while name:
            at = seen.get(name)
            if at is None:
                if len(out) <= _POINTER_AT_MOST:
                    seen[name] = len(out)
            elif shorten:
                out += struct.pack("!H", _POINTER | at)
                return
            out.append(len(name[0]))
            out += name[0]
            name = name[1:]
        out.append(0)

    def _size(self, record: Record, named: tuple[bytes | Name, ...] = ()) -> int:
        """How many bytes the record takes at most; the names in `named` can be pointed to."""
        owner = 2 if record.owner in self._seen or record.owner in named else _length(record.owner)
        data = sum(len(part) if isinstance(part, bytes) else _length(part) for part in record.data)
        return owner + 10 + data


def _length(name: Name) -> int:
    return sum(map(len, name)) + len(name) + 1
