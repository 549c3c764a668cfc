"""No registry's text reaches HAProxy but through an encoder that refuses (I7), and one bad one stops no other (I3)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import hostile
import pytest
from msgspec.structs import replace

from milkrun.errors import MilkrunError
from milkrun.model import Health, Instance, InstanceId, ServiceName, VersionName, Wish
from milkrun.router.desired import Known, Mode, RoutingState, Server, desired
from milkrun.router.diff import Add, Change, Operation, Remove, SetShares
from milkrun.router.haproxy import encode


async def raw(site) -> str:
    """All that HAProxy says of itself that a command could have changed, without its counters."""
    ask = site.plane._process.admin.ask
    state = await ask("show servers state")
    kept = [line.split()[:9] for line in state.splitlines()]
    frontends = [line for line in (await ask("show stat -1 1 -1")).splitlines() if "OPEN" in line]
    shares = re.sub("0x[0-9a-f]+", "", await ask("show map goat.map"))
    return f"{kept}\n{len(frontends)}\n{shares}"


def operations(text: str, good: Server) -> Iterator[Operation]:
    """Each operation with the text in each of its fields."""
    v1 = VersionName("v1")
    if text in hostile.NAMES and not is_an_id(text):
        evil = replace(good, id=InstanceId(text))
        yield Add(v1, evil)
        yield Change(v1, evil)
        yield Change(v1, replace(evil, mode=Mode.DRAIN))
        yield Remove(v1, InstanceId(text))
    if text in hostile.ADDRESSES:
        yield Add(v1, replace(good, id=InstanceId("evil"), address=text))
    yield Add(VersionName(text), replace(good, id=InstanceId("evil")))
    yield SetShares({VersionName(text): 10_000})


def is_an_id(text: str) -> bool:
    """Odd, but whole and harmless: it may be obeyed."""
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,200}", text) is not None


async def test_no_hostile_text_changes_anything_through_the_real_socket(site, make_state):
    corpus = sorted({*hostile.NAMES, *hostile.ADDRESSES})
    assert len(corpus) >= 200
    good = site.app("good").server()
    wanted = make_state({"v1": 10_000}, v1=[good])
    await site.plane.start(wanted)
    before = await raw(site)
    obeyed = []
    for text in corpus:
        for operation in operations(text, good):
            try:
                await site.plane.apply([operation], wanted)
            except (MilkrunError, KeyError):
                continue
            obeyed.append(operation)

    assert await raw(site) == before
    assert obeyed == []
    assert site.plane.reloads == 0
    assert await site.ask() == "200 good"


async def test_this_socket_would_run_them_if_they_came_through(site, make_state, monkeypatch):
    """The test above can fail: without the grammar of ids, HAProxy does what the text says (M3)."""

    good = site.app("good").server()
    wanted = make_state({"v1": 10_000}, v1=[good])
    await site.plane.start(wanted)
    before = await raw(site)
    monkeypatch.setattr(encode, "instance_id", InstanceId)
    from milkrun.router.haproxy import commands

    monkeypatch.setattr(commands, "instance_id", InstanceId)

    text = InstanceId("good weight 1;set server goat.a/good state maint")
    await site.plane.apply([Change(VersionName("v1"), replace(good, id=text))], wanted)

    assert await raw(site) != before


@pytest.mark.parametrize("field", ["id", "version", "address"])
async def test_a_crowd_of_poisoned_instances_stops_no_good_one(site, field):
    """Through the decision, the files and the socket; HAProxy's file stays one that it starts from."""
    good = site.app("good").server()
    corpus = hostile.ADDRESSES if field == "address" else [text for text in hostile.NAMES if text != "good"]
    crowd = [
        Instance(
            **(
                {
                    "id": InstanceId(f"evil-{number}"),
                    "service": ServiceName("goat"),
                    "version": VersionName("v1"),
                    "address": "127.0.0.1",
                    "port": good.port,
                    "health": Health.PASSING,
                }
                | {field: text}
            )
        )
        for number, text in enumerate(corpus)
    ]
    fine = replace(crowd[0], id=good.id, version=VersionName("v1"), address="127.0.0.1")
    decision = desired([*crowd, fine], Wish(), Known())
    assert decision.alarms
    await site.plane.start(RoutingState())

    observed = await site.converge(decision.state)

    assert observed.shares == decision.state.shares
    assert "good" in observed.versions["v1"]
    assert {version: set(servers) for version, servers in observed.versions.items()} == {
        version: set(servers) for version, servers in decision.state.versions.items()
    }
    await site.plane._process.check()


async def test_poison_in_the_registry_stops_no_good_instance(fleet):
    """The whole way: a real registry, which takes what its users write."""
    good = await fleet.goat("good", "0.0.1")
    async with fleet.router():
        await fleet.serves("good")
        for number, text in enumerate(["127.0.0.1:1 check disabled", "${HOME}", "unix@/tmp/x", "x;quit"]):
            await fleet.join(replace(good, name=f"evil-{number}"), address=text)
        for number, text in enumerate(["a b", "1;disable server goat.a/good", "x\ny", "é"]):
            await fleet.join(replace(good, name=f"sick-{number}"), tags=[f"version={text}"])
        await fleet.join(replace(good, name="spill"))
        for number in range(40):
            await fleet.join(replace(good, name=f"many-{number}"), tags=[f"version=9.0.{number}"])
        await fleet.weigh(1, {"0.0.1": 1})

        await fleet.goat("fine", "0.0.1")

        report = await fleet.reported(lambda report: "fine" in report.instances and not report.drift)
        assert {"good", "fine"} == {
            name for name, seen in report.instances.items() if not name.startswith(("many", "evil", "sick"))
        }
        told = " ".join(report.alarms)
        assert "is not an IP address" in told
        assert "is not a version" in told
        assert "'spill'" in told
        assert "versions are registered and 24 fit" in told
        assert set(await fleet.answers()) == {"good", "fine"}


async def test_two_instances_with_one_address_and_one_id_at_two_addresses(site, make_state):
    a = site.app("a")
    twin = replace(a.server(), id=InstanceId("twin"))
    wanted = make_state({"v1": 10_000}, v1=[a.server(), twin])
    await site.plane.start(make_state({}))

    observed = await site.converge(wanted)

    assert set(observed.versions["v1"]) == {"a", "twin"}
    assert {await site.ask() for _ in range(10)} == {"200 a"}


@pytest.mark.parametrize(
    "address", ["::1", "::ffff:127.0.0.1", "::102:304", "2001:db8::1", "2001:db8:0:1:1:1:1:1"]
)
async def test_an_address_is_read_back_as_it_was_written(site, make_state, address):
    """HAProxy writes some IPv6 addresses another way than Python: they must not be moved for ever."""
    from milkrun.model import endpoint
    from milkrun.router.diff import diff

    host, port = endpoint(address, 8101)
    wanted = make_state({"v1": 10_000}, v1=[Server(id=InstanceId("six"), address=host, port=port)])
    await site.plane.start(make_state({}))

    observed = await site.converge(wanted)

    assert diff(observed, wanted) == []
    assert observed.versions["v1"]["six"].server == wanted.versions["v1"]["six"]


async def test_many_instances_come_and_go_without_a_reload(site, make_state):
    a = site.app("a")
    crowd = [replace(a.server(), id=InstanceId(f"goat-0.0.1-a-host-of-some-length-{n}")) for n in range(300)]
    await site.plane.start(make_state({}))

    observed = await site.converge(make_state({"v1": 10_000}, v1=crowd))
    assert len(observed.versions["v1"]) == 300
    observed = await site.converge(make_state({"v1": 10_000}, v1=crowd[:1]))

    assert list(observed.versions["v1"]) == [crowd[0].id]
    assert site.plane.reloads == 0
    assert await site.ask() == "200 a"
