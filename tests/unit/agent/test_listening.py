import os
import socket

from milkrun.agent.units.listening import foreign


def test_a_port_is_foreign_when_somebody_else_listens_on_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not foreign(port, [os.getpid()])
        assert not foreign(port, [2**22 - 1, os.getpid()])
        assert foreign(port, [])
        assert foreign(port, [os.getppid()])
    assert not foreign(port, []), "nobody listens: nothing is known"


def test_a_connection_is_no_listener():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        assert not foreign(one.getsockname()[1], [])
