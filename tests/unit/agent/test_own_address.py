"""The address at which others reach this host's instances."""

from __future__ import annotations

import msgspec
import pytest

from milkrun.agent import own_address
from milkrun.agent.own_address import here
from milkrun.errors import MilkrunError
from milkrun.settings.environment import AgentSettings

LOOPBACK = AgentSettings(address="127.0.0.1", ports=(1, 2))


class Way:
    """A socket that the kernel would send from this address."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def connect(self, there):
        assert there[0] == "198.51.100.1"

    def getsockname(self):
        return ("198.51.100.7", 40_000)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8500", "http://localhost:8500", "http://[::1]:8500"])
async def test_beside_the_registry_it_stays_loopback(url):
    assert await here(LOOPBACK, url) == LOOPBACK


async def test_away_from_the_registry_it_is_the_one_by_which_the_registry_is_reached(monkeypatch):
    monkeypatch.setattr(own_address.socket, "socket", Way)
    found = await here(LOOPBACK, "http://198.51.100.1:8500")
    assert found == msgspec.structs.replace(LOOPBACK, address="198.51.100.7")


async def test_an_address_that_somebody_chose_stays():
    chosen = AgentSettings(address="192.0.2.9")
    assert await here(chosen, "http://198.51.100.1:8500") is chosen


async def test_no_way_to_the_registry_is_told(monkeypatch):
    def no_way(*_):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(own_address.socket, "socket", no_way)
    with pytest.raises(MilkrunError, match="no address by which it reaches the registry") as caught:
        await here(LOOPBACK, "http://198.51.100.1:8500")
    assert "agent.address" in caught.value.remedy
