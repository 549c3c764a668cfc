import asyncio
import time

from milkrun.agent.guests import guest
from milkrun.agent.guests.guest import Guest, House
from milkrun.agent.guests.known import Known
from milkrun.agent.guests.labels import Offer

OFFER = Offer(service="goat", version="1", address="127.0.0.1", port=9000)


async def test_who_cannot_be_seen_for_long_is_not_taken_to_be_well():
    house = House(host="meadow", registry=None, prober=None, router_news=asyncio.Event)
    one = Guest(house, "c0ffee", OFFER, listed=False)
    assert one._by_running().ok
    one.unseen_since = time.monotonic() - guest.UNSEEN_S / 2
    assert one._by_running().ok
    one.unseen_since = time.monotonic() - guest.UNSEEN_S - 1
    assert not one._by_running().ok


def test_what_the_registry_was_told_outlives_the_agent(tmp_path):
    known = Known(tmp_path)
    known.add("goat-1", "c0ffee")
    known.add("goat-2", "decaf")
    known.remove("goat-1")
    again = Known(tmp_path)
    assert list(again) == ["goat-2"]
    assert (again.get("goat-1"), again.get("goat-2")) == ("", "decaf")


def test_a_broken_file_is_none(tmp_path):
    (tmp_path / "guests.json").write_text("{")
    assert list(Known(tmp_path)) == []
