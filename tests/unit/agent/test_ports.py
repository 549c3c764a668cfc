import socket

import pytest

from milkrun.agent import ports
from milkrun.errors import MilkrunError


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_somebody_listens_on_is_not_free(listener):
    assert not ports.free("127.0.0.1", listener)


def test_taken_and_used_ports_are_passed_over(listener):
    chosen = ports.choose("127.0.0.1", listener, listener + 20, {listener + 1})
    assert chosen > listener + 1


def test_a_full_range_says_so(listener):
    with pytest.raises(MilkrunError, match=f"no port from {listener} to {listener} is free"):
        ports.choose("127.0.0.1", listener, listener, set())


def test_an_address_of_another_host_is_named():
    with pytest.raises(MilkrunError, match=r"nothing can listen on 192\.0\.2\.1 here"):
        ports.free("192.0.2.1", 8101)


def test_a_port_whose_last_connection_is_still_closing_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()  # the server closes first, as a stopped instance does: TIME_WAIT stays on its side
        client.close()
    assert ports.free("127.0.0.1", port)
