from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from ports import free_port

from milkrun.errors import PortTaken
from milkrun.settings.environment import Environment, RegistrySettings
from milkrun.up import ports


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def environment(http: str) -> Environment:
    return Environment(name="x", registry=RegistrySettings(http=http))


def test_a_taken_port_names_its_holder_the_setting_and_the_file(listening: str):
    with pytest.raises(PortTaken) as caught:
        ports.check(environment(listening), set(), "/farm/milkrun.toml")
    assert f"{listening} is taken by" in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "change http in [registry] of /farm/milkrun.toml" in caught.value.remedy


def test_a_port_that_our_own_part_holds_is_fine(listening: str):
    ports.check(environment(listening), {os.getpid()}, "milkrun.toml")


def test_a_free_port_is_free():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert ports.taken(address) is None


def test_a_port_taken_on_all_addresses_is_taken_on_each():
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert ports.taken(f"127.0.0.1:{server.getsockname()[1]}") is not None


def test_every_address_of_the_settings_is_looked_at(farm):
    assert [one.setting for one in ports.wanted(farm.environment.settings)] == [
        "http in [registry]",
        "listen in [routers.lb-goat]",
        "stats in [routers.lb-goat]",
    ]


def test_dns_needs_its_port_for_datagrams_too():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", free_port()))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert ports.taken(address) is None
        farm = Environment(name="x", registry=RegistrySettings(http="127.0.0.1:1", dns=address))
        with pytest.raises(PortTaken, match=rf"{address} is taken by .*\(pid {os.getpid()}\)") as caught:
            ports.check(farm, set(), "milkrun.toml")
        assert "change dns in [registry]" in caught.value.remedy
        ports.check(farm, {os.getpid()}, "milkrun.toml")
