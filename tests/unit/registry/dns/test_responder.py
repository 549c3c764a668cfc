from __future__ import annotations

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from milkrun.registry.access.authority import Gate
from milkrun.registry.dns.responder import LOG_EVERY_S, Responder


class Engine:
    """As much of an engine as the responder reads: its machine and its gate."""

    def __init__(self, machine) -> None:
        self.machine = machine
        self.gate = Gate()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def responder(farm, clock) -> Responder:
    for number in range(60):
        farm.goat(f"goat-{number}", f"10.0.0.{number}")
    return Responder(Engine(farm.machine), farm.pick, clock)


def query(payload: int = 0) -> bytes:
    edns = 0 if payload else False
    return dns.message.make_query(
        "goat.service.consul", "SRV", use_edns=edns, payload=payload or 512
    ).to_wire()


@pytest.mark.parametrize(("payload", "room"), [(0, 512), (100, 512), (1232, 1232), (65535, 3000)])
def test_a_client_gets_no_more_than_it_takes_nor_than_we_send(responder, payload: int, room: int):
    answer = responder.answer(query(payload), 3000, plain=True, local=True)
    assert room - 100 < len(answer) <= room


def test_without_a_limit_of_the_client_it_gets_all(responder):
    assert (
        len(dns.message.from_wire(responder.answer(query(), 65535, plain=False, local=True)).answer[0]) == 60
    )


def test_a_registry_that_went_back_to_its_disk_is_read_anew(responder, make_farm):
    other = make_farm()
    responder._engine.machine = other.machine
    assert (
        dns.message.from_wire(responder.answer(query(), 65535, plain=False, local=True)).rcode()
        == dns.rcode.NXDOMAIN
    )


def test_the_log_of_what_is_not_understood_is_bounded(responder, clock):
    with capture_logs() as logs:
        for _ in range(1000):
            assert responder.answer(b"junk", 512, plain=True, local=True) is None
        assert [log["messages"] for log in logs] == [1]
        clock.now += LOG_EVERY_S
        responder.answer(query()[:20], 512, plain=True, local=True)
    assert [log["messages"] for log in logs] == [1, 1000]


@settings(deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_leave_it_working(make_farm, data, plain):
    farm = make_farm()
    farm.goat()
    responder = Responder(Engine(farm.machine), farm.pick, lambda: 0.0)
    with capture_logs():
        answer = responder.answer(data, 512, plain=plain, local=True)
    assert answer is None or len(answer) <= 512
    assert dns.message.from_wire(responder.answer(query(), 512, plain=plain, local=True)).answer
