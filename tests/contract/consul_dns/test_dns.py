"""The same questions to both, compared section by section; every difference stands here with its reason."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import pytest
from dns.message import Message

pytestmark = pytest.mark.needs("consul")

SAME = """
web.service.consul A
web.service.consul AAAA
web.service.consul SRV
web.service.consul ANY
web.service.consul MX
web.service.consul CNAME
web.service.dc1.consul A
web.service.dc1.consul SRV
web.service.DC1.consul A
web.service.dc9.consul A
WeB.SeRvIcE.CoNsUl A
v2.web.service.consul A
v2.web.service.consul SRV
V2.WEB.service.consul SRV
v1.web.service.dc1.consul SRV
prod.web.service.consul A
none.web.service.consul A
none.service.consul A
none.service.consul SRV
dead.service.consul A
dead.service.consul SRV
_web._tcp.service.consul SRV
_web._tcp.service.consul A
_web._TCP.service.consul SRV
_web._tcp.consul SRV
_web._tcp.dc1.consul SRV
_web._tcp.service.dc1.consul SRV
_web._v2.service.consul SRV
_web._v2.consul SRV
_web._udp.service.consul SRV
_v1._web.service.consul SRV
x._web._tcp.service.consul SRV
six.service.consul A
six.service.consul AAAA
six.service.consul SRV
six.service.consul ANY
dual.service.consul A
dual.service.consul AAAA
dual.service.consul ANY
dual.service.consul SRV
named.service.consul A
named.service.consul SRV
named.service.consul CNAME
alias.service.consul A
alias.service.consul SRV
mix.service.consul A
mix.service.consul ANY
mix.service.consul SRV
cat.service.consul SRV
big.cat.service.consul A
version=0.0.1.cat.service.consul SRV
0.0.1.cat.service.consul SRV
a.b.dotted.service.consul SRV
same.service.consul A
same.service.consul SRV
own.service.consul SRV
portless.service.consul SRV
under_score.service.consul A
heavy.service.consul SRV
many.service.consul A
many.service.consul SRV
ext.service.consul SRV
far.service.consul A
far.service.consul SRV
sixth.service.consul A
sixth.service.consul AAAA
sixth.service.consul SRV
upper.service.consul SRV
bad.service.consul A
consul.service.consul A
service.service.consul A
n1.node.consul A
N1.node.consul A
n1.node.dc1.consul A
n1.node.dc9.consul A
none.node.consul A
upper.node.consul A
sixth.node.consul AAAA
host.name.node.consul A
ext.node.consul A
ext.node.consul TXT
ext.node.consul ANY
7f00000b.addr.dc1.consul A
7f00000b.addr.dc1.consul ANY
7f00000b.addr.dc9.consul A
7f00000b.addr.consul A
20010db8000000000000000000000015.addr.dc1.consul AAAA
x.y.addr.consul A
consul SOA
consul NS
ns.consul A
web.consul A
foo.bar.consul A
x.query.consul A
web.connect.consul A
web.service.other.dc1.consul A
11.0.0.127.in-addr.arpa PTR
1.0.0.127.in-addr.arpa PTR
3.2.1.10.in-addr.arpa PTR
5.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR
7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR
example.com A
consul.example.com A
. NS
"""

BELOW = "names exist below it: NXDOMAIN would deny those too (RFC 8020), and minimising resolvers stop there"
NOT_ASKED = "a record of another type is no answer to the question; a resolver throws it away"
NO_SOA = "a no without the SOA cannot be told from a broken answer (RFC 2308 §2.2)"
HOSTILE = "a text that is no host's name never becomes one (DESIGN.md I7)"

DIFFERENT = {
    # question: (Consul's answer, ours, why)
    "web.service.consul TXT": ("A A A", "NODATA", NOT_ASKED),
    "web.service.consul NS": ("NS", "NODATA", "the zone is cut at consul., not here"),
    "web.service.consul SOA": ("SOA", "NODATA", "the SOA belongs to consul., and comes as the authority"),
    "mix.service.consul AAAA": (
        "CNAME",
        "NODATA",
        "A and AAAA of one name must agree: no CNAME beside others",
    ),
    "odd.service.consul SRV": ("SRV", "NXDOMAIN", HOSTILE),
    "odd.service.consul A": ("CNAME", "NXDOMAIN", HOSTILE),
    "bad.service.consul SRV": ("SRV", "SRV", "the target is the address's name: " + HOSTILE),
    "_web._tcp.consul A": ("NXDOMAIN", "A A A", "a name that has SRV records exists for every type"),
    "1.cat.service.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "b.dotted.service.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "name.node.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "_web.service.consul SRV": ("NXDOMAIN", "NODATA", BELOW),
    "_tcp.service.consul SRV": ("NXDOMAIN", "NODATA", BELOW),
    "_tcp.consul SRV": ("NXDOMAIN", "NODATA", BELOW),
    "service.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "service.dc1.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "node.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "addr.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "dc1.consul A": ("NXDOMAIN", "NODATA", BELOW),
    "consul A": ("NXDOMAIN", "NODATA", BELOW),
    "consul ANY": ("NXDOMAIN", "NS SOA", "the zone's own name exists"),
    "n1.node.consul AAAA": ("NODATA", "NODATA", NO_SOA),
    "n1.node.consul SRV": ("NODATA", "NODATA", NO_SOA),
    "sixth.node.consul A": ("NODATA", "NODATA", NO_SOA),
    "n1.node.consul TXT": ("TXT", "NODATA", "its only metadata is Consul's own network segment"),
    "n1.node.consul ANY": ("A TXT", "A", "its only metadata is Consul's own network segment"),
    "host.name.node.consul CNAME": ("NODATA", "CNAME", "the CNAME is there for who asks for it"),
    "7f00000b.addr.dc1.consul AAAA": ("A", "NODATA", NOT_ASKED),
    "7f00000b.addr.dc1.consul SRV": ("A", "NODATA", NOT_ASKED),
    "20010db8000000000000000000000015.addr.dc1.consul A": ("AAAA", "NODATA", NOT_ASKED),
    "7F00000B.addr.consul A": ("A", "A", "the owner keeps the letters of the question (0x20)"),
    "zz.addr.dc1.consul A": ("NODATA", "NXDOMAIN", "what is no address has no name"),
    "7f0000.addr.consul A": ("NODATA", "NXDOMAIN", "what is no address has no name"),
    "9.9.9.9.in-addr.arpa PTR": ("SERVFAIL", "REFUSED", "not our zone, and nothing failed: others may know"),
}


def _without_unasked_text(answer, kind: str):
    """Consul adds every node's metadata as TXT to answers that did not ask for it; we leave the room to addresses."""
    if kind in ("TXT", "ANY"):
        return answer
    return answer._replace(additional=[row for row in answer.additional if row.type != "TXT"])


def _asked(both, question: str, **how):
    name, kind = question.split()
    return [_without_unasked_text(server.ask(name, kind, **how), kind) for server in (both.ours, both.consul)]


@pytest.mark.parametrize("question", SAME.strip().splitlines())
@pytest.mark.parametrize("how", [{"tcp": True}, {"payload": 8192}], ids=["tcp", "udp"])
def test_both_answer_the_same(both, question: str, how):
    ours, consul = _asked(both, question, **how)
    if consul.rcode == "REFUSED":
        # Its refusals are without EDNS even where the question had it, against RFC 6891 §6.1.1.
        consul = consul._replace(edns=ours.edns)
    assert ours == consul


@pytest.mark.parametrize("question", DIFFERENT)
def test_we_differ_where_we_say_so_and_only_so(both, question: str):
    ours, consul = _asked(both, question, tcp=True)
    assert (str(consul), str(ours)) == DIFFERENT[question][:2]
    assert ours != consul, "no difference any more: it belongs among the same"
    assert "AA" in ours.flags or str(ours) == "REFUSED"
    if str(ours) in ("NODATA", "NXDOMAIN"):
        assert [(row.owner, row.type) for row in ours.authority] == [("consul.", "SOA")]


@pytest.mark.parametrize("kind", ["A", "SRV", "ANY"])
@pytest.mark.parametrize("payload", [0, 512, 1232])
def test_an_answer_that_is_cut_says_so_where_consul_keeps_silent(both, kind: str, payload: int):
    ours, consul = (server.ask("many.service.consul", kind, payload=payload) for server in both)
    assert len(consul.answer) < 60 or payload == 1232
    assert "TC" not in consul.flags
    assert len(ours.answer) >= len(consul.answer)
    assert ("TC" in ours.flags) == (len(ours.answer) < 60)
    whole = both.ours.ask("many.service.consul", kind, tcp=True)
    assert set(ours.answer) <= set(whole.answer)
    assert len(whole.answer) == 60
    assert "TC" not in whole.flags


QUERY = dns.message.make_query("web.service.consul", "A", use_edns=False).to_wire()


def _changed(at: int, value: int) -> bytes:
    changed = bytearray(QUERY)
    changed[at] = value
    return bytes(changed)


def _made(**how) -> bytes:
    return dns.message.make_query("web.service.consul", **{"rdtype": "A", "use_edns": False, **how}).to_wire()


RAW: dict[str, tuple[bytes, str, str, str]] = {
    # what: (bytes, Consul's rcode, ours, why they differ)
    "a query": (QUERY, "NOERROR", "NOERROR", ""),
    "an answer": (_changed(2, 0x80), "nothing", "nothing", ""),
    "three bytes": (b"abc", "nothing", "nothing", ""),
    "no question": (_changed(5, 0), "FORMERR", "FORMERR", ""),
    "two questions announced": (_changed(5, 2), "FORMERR", "FORMERR", ""),
    "cut in the name": (QUERY[:20], "FORMERR", "FORMERR", ""),
    "bytes after the end": (QUERY + b"more", "NOERROR", "NOERROR", ""),
    "opcode STATUS": (_changed(2, 2 << 3), "NOTIMP", "NOTIMP", ""),
    "opcode UPDATE": (_changed(2, 5 << 3), "NOTIMP", "NOTIMP", ""),
    "class ANY": (_made(rdclass="ANY"), "NOERROR", "NOERROR", ""),
    "a zone transfer": (_made(rdtype="AXFR"), "NOTIMP", "NOTIMP", ""),
    "a payload below 512": (_made(use_edns=0, payload=100), "NOERROR", "NOERROR", ""),
    "opcode NOTIFY": (_changed(2, 4 << 3), "NOERROR", "NOTIMP", "we are nobody's secondary"),
    "class CH": (_made(rdclass="CH"), "NOERROR", "REFUSED", "the zone is of class IN"),
    "EDNS 1": (_made(use_edns=1), "NOERROR", "BADVERS", "RFC 6891 §6.1.3"),
    "a header alone": (QUERY[:12], "REFUSED", "FORMERR", "the question that it announces is not there"),
}


@pytest.mark.parametrize("what", RAW)
def test_strange_messages_get_the_same_codes(both, what: str):
    data, consul, ours, why = RAW[what]
    assert bool(why) == (consul != ours)
    assert _rcode(both.consul.send(data)) == consul
    assert _rcode(both.ours.send(data)) == ours


def _rcode(data: bytes | None) -> str:
    if data is None:
        return "nothing"
    message: Message = dns.message.from_wire(data)
    return dns.rcode.to_text(message.rcode())


def test_both_speak_edns_only_to_who_does(both):
    for server in both:
        assert server.ask("web.service.consul", "A").edns == -1
        assert server.ask("web.service.consul", "A", payload=1232).edns == 0


def test_the_order_changes(both):
    """Both spread those who take the first record."""
    for server in both:
        query = dns.message.make_query("many.service.consul", "SRV")
        firsts = {
            dns.query.tcp(query, "127.0.0.1", port=server.dns_port, timeout=5).answer[0][0].port
            for _ in range(20)
        }
        assert len(firsts) > 3
