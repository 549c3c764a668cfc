"""Who asks from another machine is shown nothing by default, over HTTP and over DNS, but what the anonymous may see."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from security.process import Daemon
from security.samples import OWN, populated

from milkrun.registry import commands
from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.access.tokens import ANONYMOUS_ID, Policy, Token
from milkrun.registry.dns.responder import Responder
from milkrun.registry.engine import Engine

POLICY = "00000000-0000-0000-0000-0000000000ee"
QUESTIONS = {
    "goat.service.consul.": "SRV",
    "tag-of-goat.goat.service.consul.": "A",
    "n1.node.consul.": "A",
    "1.0.0.127.in-addr.arpa.": "PTR",
}


class Kept:
    """A storage that takes every commit and starts from the rows that it was given."""

    def __init__(self) -> None:
        machine = populated()
        self._rows = [
            (kind, body) for (kind, _), body in machine.ledger.take()[0].items() if body is not None
        ]
        self.index = machine.ledger.index

    def rows(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._rows)

    def commit(self, rows: object, index: int) -> None:
        pass


class Dns:
    """What DNS says, by who asks."""

    def __init__(self, mode: Mode) -> None:
        self.engine = Engine(Kept(), OWN, gate=Gate(mode, "own"))
        self._responder = Responder(self.engine, lambda items, count: list(items)[:count], lambda: 0.0)

    def opens(self, rules: str) -> None:
        """The anonymous may do this from now on."""
        machine = self.engine.machine
        machine.apply(commands.PutPolicy(Policy(id=POLICY, name="open", text=rules)), 1.0)
        machine.apply(commands.PutToken(Token(accessor=ANONYMOUS_ID, digest="", policies=[POLICY])), 1.0)

    def ask(self, name: str, *, local: bool) -> str:
        query = dns.message.make_query(name, QUESTIONS.get(name, "A")).to_wire()
        data = self._responder.answer(query, 8192, plain=True, local=local)
        assert data
        reply = dns.message.from_wire(data)
        text = " ".join(rrset.to_text() for rrset in (*reply.answer, *reply.additional))
        return text or dns.rcode.to_text(reply.rcode())


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize(
    ("mode", "local", "shown"),
    [
        (Mode.OPEN, True, True),
        (Mode.OPEN, False, True),
        (Mode.DEFAULT, True, True),
        (Mode.DEFAULT, False, False),
        (Mode.CLOSED, True, False),
        (Mode.CLOSED, False, False),
    ],
)
async def test_dns_shows_what_whoever_has_no_token_may_see(name, mode, local, shown):
    answer = Dns(mode).ask(name, local=local)

    assert (answer in ("NXDOMAIN", "REFUSED")) is not shown, answer
    assert shown or ("127.0.0.1" not in answer and "goat" not in answer)


async def test_who_is_on_this_machine_and_who_is_not_are_answered_in_turn():
    found = Dns(Mode.DEFAULT)

    for _ in range(3):
        assert "goat" in found.ask("goat.service.consul.", local=True)
        assert found.ask("goat.service.consul.", local=False) == "NXDOMAIN"


@pytest.mark.parametrize("mode", [Mode.DEFAULT, Mode.CLOSED])
async def test_the_anonymous_tokens_policy_opens_services(mode):
    found = Dns(mode)
    assert found.ask("goat.service.consul.", local=False) == "NXDOMAIN"

    found.opens('service "goat" { policy = "read" }')
    assert "127.0.0.1" not in found.ask("goat.service.consul.", local=False), "its node is not to be seen"
    found.opens('service "goat" { policy = "read" }\nnode_prefix "" { policy = "read" }')
    assert "127.0.0.1" in found.ask("goat.service.consul.", local=False)
    assert found.ask("hen.service.consul.", local=False) == "NXDOMAIN"
    assert "127.0.0.1" in found.ask("n1.node.consul.", local=False)

    found.opens("")
    assert found.ask("goat.service.consul.", local=False) == "NXDOMAIN", "and closes them again"
    assert found.ask("n1.node.consul.", local=False) == "NXDOMAIN"


def test_over_real_sockets(tmp_path: Path):
    """From loopback, and from this machine's other address where it has one: the registry tells them apart."""
    daemon = Daemon(tmp_path)
    daemon.host = "0.0.0.0"
    with daemon.serving():
        daemon.must("PUT", "/v1/agent/service/register", {"Name": "goat", "Address": "10.1.2.3", "Port": 1})
        for address in {"127.0.0.1", other_address()}:
            local = address == "127.0.0.1"
            connection = http.client.HTTPConnection(address, daemon.port, timeout=20)
            with closing(connection):
                connection.request("GET", "/v1/health/service/goat")
                reply = connection.getresponse()
                marked = reply.headers.get("X-Consul-Results-Filtered-By-ACLs")
                assert (bool(json.loads(reply.read())), marked) == (
                    (True, None) if local else (False, "true")
                )
                connection.request("GET", "/v1/health/service/goat", headers={"X-Consul-Token": daemon.token})
                assert len(json.loads(connection.getresponse().read())) == 1
            for send in (dns.query.udp, dns.query.tcp):
                query = dns.message.make_query("goat.service.consul.", "A")
                answer = send(query, address, port=daemon.dns, timeout=20)
                assert bool(answer.answer) is local
                assert answer.rcode() == (dns.rcode.NOERROR if local else dns.rcode.NXDOMAIN)


def other_address() -> str:
    """The address by which other machines reach this one; loopback where there is no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(unsent.getsockname()[0])
