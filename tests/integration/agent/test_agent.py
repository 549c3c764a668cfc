from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import msgspec

from milkrun.agent.daemon import run
from milkrun.agent.registration import Entry, registration
from milkrun.agent.units.marked import marked
from milkrun.consul import Watch, keys
from milkrun.host.process import runs
from milkrun.model import Health, InstanceTraffic
from milkrun.settings.service import HealthSettings, StopSettings

GOAT = Path(__file__).parent / "goat.py"
SLOW_DRAIN = StopSettings(drain_limit_s=60, stop_limit_s=5)


def states(report):
    return [unit.state for unit in report.units]


async def test_it_runs_registers_and_stops_what_git_asks_for(farming):
    async with farming() as farm:
        await farm.publish(wish={"0.0.1+b": 2})
        agent = farm.agent()
        first, second = await farm.passing(2)
        assert (first.version, first.address) == ("0.0.1+b", "127.0.0.1")
        assert first.id == f"goat-0.0.1_b-meadow-{first.port}"
        assert {first.id, second.id} == farm.running().keys()
        slots = await farm.slots(lambda slots: len(slots) == 2)
        assert slots.keys() == {"goat/0.0.1+b/0", "goat/0.0.1+b/1"}
        assert all(pair.session for pair in slots.values())
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        assert {unit.pid for unit in report.units} == set(farm.running().values())
        assert Path(report.units[0].log).read_text() == f"milked by {report.units[0].instance} False\n"
        await farm.stop(agent)
        assert farm.running() == {}
        assert await farm.instances(lambda _: True) == []
        assert await farm.instances(lambda _: True, "milkrun-agent") == []
        assert await farm.slots(lambda _: True) == {}
        # Given back, not torn away with the session: no lock delay keeps another host from it.
        other = await farm.registry.create_session("barn", ttl_s=15, behavior="delete", lock_delay_s=0)
        assert await farm.registry.put(keys.slot("goat", "0.0.1+b", 0), b"", acquire=other)
        # So the next agent here can report at once.
        assert await farm.registry.put(keys.agent_report("meadow"), b"", acquire=other)
        assert list((farm.state("meadow") / "units").iterdir()) == []


async def test_a_killed_instance_is_critical_at_once_and_comes_back_in_its_place(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2}, health=HealthSettings(interval_s=30, rise=2))
        farm.agent()
        victim, other = await farm.passing(2)
        pids = farm.running()
        farm.kill(victim.id)
        seen = await farm.instances(lambda instances: instances[0].health is not Health.PASSING)
        assert (seen[0].id, seen[0].health, seen[0].reason) == (
            victim.id,
            Health.CRITICAL,
            "killed by signal 9",
        )
        assert seen[1].health is Health.PASSING
        assert [one.id for one in await farm.passing(2)] == [victim.id, other.id]
        assert farm.running()[other.id] == pids[other.id]
        assert farm.running()[victim.id] != pids[victim.id]
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        assert [unit.restarts for unit in report.units] == [1, 0]


async def test_failing_probes_make_it_critical_and_good_ones_passing_again(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        farm.agent()
        (one,) = await farm.passing(1)
        sick = farm.folder / f"sick-{one.id}"
        sick.touch()
        (seen,) = await farm.instances(lambda instances: instances[0].health is not Health.PASSING)
        assert (seen.health, seen.reason) == (Health.CRITICAL, "GET /health: 503")
        sick.unlink()
        await farm.passing(1)


async def test_an_agent_that_was_killed_is_followed_by_one_that_adopts(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2})
        process = farm.agent_process()
        before = await farm.passing(2)
        pids, slots = farm.running(), await farm.slots(lambda slots: len(slots) == 2)
        await farm.crash(process)
        agent = farm.agent()
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        assert {unit.instance: unit.pid for unit in report.units} == pids
        assert [unit.restarts for unit in report.units] == [0, 0]
        assert await farm.passing(2) == before
        after = await farm.slots(lambda slots: len(slots) == 2)
        assert {key: pair.session for key, pair in after.items()} == {
            key: pair.session for key, pair in slots.items()
        }
        farm.kill(before[0].id)
        (seen, _) = await farm.instances(lambda instances: instances[0].health is not Health.PASSING)
        assert seen.reason.startswith("process ended") or seen.reason == "killed by signal 9"
        await farm.passing(2)
        await farm.stop(agent)
        assert farm.running() == {}


async def test_an_instance_that_died_with_its_agent_is_replaced(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        await farm.crash(process)
        old = farm.running()[one.id]
        farm.kill(one.id)
        farm.agent()
        await farm.report(lambda report: states(report) == ["healthy"] and report.units[0].pid != old)
        await farm.passing(1)


async def test_a_handover_leaves_everything_to_the_next_agent(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2})
        handover = asyncio.Event()
        agent = farm.agent(handover=handover)
        before = await farm.passing(2)
        pids = farm.running()
        handover.set()
        async with asyncio.timeout(5):
            await agent
        assert farm.running() == pids
        assert await farm.passing(2) == before
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        assert {unit.instance: unit.pid for unit in report.units} == pids


async def test_a_drain_waits_for_every_router(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2}, stop=SLOW_DRAIN)
        farm.agent()
        kept, going = await farm.passing(2)
        slots = await farm.slots(lambda slots: len(slots) == 2)
        if going.id.encode() in slots["goat/1/0"].data:
            kept, going = going, kept
        serving = {going.id: InstanceTraffic(state="serving", in_flight=3)}
        await farm.router("r1", instances=serving)
        await farm.router("r2", instances=serving)
        await farm.wish("goat", {"1": 1})
        seen = await farm.instances(lambda instances: Health.MAINTENANCE in {one.health for one in instances})
        by_id = {one.id: one for one in seen}
        assert by_id[going.id].health is Health.MAINTENANCE
        assert by_id[going.id].reason == "git asks for 1 of goat 1"
        assert by_id[kept.id].health is Health.PASSING
        drained = {going.id: InstanceTraffic(state="drained")}
        _, index = await farm.registry.health("goat")
        await farm.router("r1", catalog_index=index, instances=drained)
        # Asked for again meanwhile: the drain is not called off, the slot is claimed anew afterwards.
        await farm.wish("goat", {"1": 2})
        await farm.report(lambda report: sorted(states(report)) == ["draining", "healthy"])
        assert going.id in farm.running()
        await farm.router("r2", catalog_index=index - 1)
        assert going.id in farm.running()
        pid = farm.running()[going.id]
        await farm.router("r2", catalog_index=index)
        await farm.report(lambda r: states(r) == ["healthy"] * 2 and pid not in [u.pid for u in r.units])
        assert pid not in farm.running().values()
        assert len(await farm.passing(2)) == 2


async def test_a_dead_router_is_waited_for_no_longer_than_the_limit(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1}, stop=StopSettings(drain_limit_s=1.0, stop_limit_s=5))
        farm.agent()
        await farm.passing(1)
        await farm.router("r1", instances={})
        await farm.wish("goat", {"1": 0})
        await farm.report(lambda report: states(report) == ["draining"])
        await farm.report(lambda report: states(report) == [])
        assert farm.running() == {}


async def test_an_older_generation_is_not_followed_and_that_is_said(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        farm.agent()
        (one,) = await farm.passing(1)
        newest, farm.generation = farm.generation, 0
        await farm.wish("goat", {"1": 0})
        report = await farm.report(lambda report: report.alarms)
        assert "goat/commit went back from commit c0ffee (generation 2) to" in report.alarms[0]
        assert [unit.state for unit in report.units] == ["healthy"]
        farm.generation = newest
        await farm.wish("goat", {"1": 2})
        assert one in await farm.passing(2)
        await farm.report(lambda report: not report.alarms)
        # The settings too: an older command is not what the next instance is started with.
        farm.generation = -1
        await farm.publish(wish={"1": 2}, command=["/no/such/program"])
        await farm.report(lambda report: len(report.alarms) == 3)
        farm.kill(one.id)
        await farm.report(lambda report: states(report) == ["healthy"] * 2 and report.units[0].restarts == 1)


async def test_it_is_in_the_catalog_at_the_address_that_git_gives_its_instances(farming):
    async with farming() as farm:
        await farm.publish(address="127.0.0.2", wish={"1": 1})
        farm.agent()
        (one,) = await farm.passing(1)
        assert one.address == "127.0.0.2"
        await farm.instances(lambda agents: [one.address for one in agents] == ["127.0.0.2"], "milkrun-agent")


async def test_replicas_to_none_stop_all(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2})
        farm.agent()
        await farm.passing(2)
        await farm.wish("goat", {"1": 0})
        await farm.report(lambda report: report.units == [])
        assert await farm.instances(lambda _: True) == []
        assert await farm.slots(lambda slots: not slots) == {}


async def test_a_registry_that_comes_back_empty_stops_nothing_and_learns_all_again(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 2})
        farm.agent()
        before = await farm.passing(2)
        pids = farm.running()
        await farm.stop_registry()
        await farm.start_registry(empty=True)
        assert [one.id for one in await farm.passing(2)] == [one.id for one in before]
        await farm.slots(lambda slots: len(slots) == 2)
        assert farm.running() == pids
        await farm.publish(wish={"1": 1})
        await farm.passing(1)
        assert len(farm.running()) == 1


async def test_without_a_registry_instances_run_on_and_a_clean_stop_ends(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        agent = farm.agent()
        (one,) = await farm.passing(1)
        await farm.stop_registry()
        farm.kill(one.id)
        await farm.stop(agent)
        assert farm.running() == {}
        await farm.start_registry()
        farm.agent()
        await farm.report(lambda report: states(report) == ["healthy"])
        await farm.passing(1)


async def test_one_broken_service_never_stops_another(farming):
    async with farming() as farm:
        await farm.publish("fence", wish={"1": 1}, command=["no-such-program"])
        await farm.publish("crash", wish={"1": 1}, command=["{python}", "-c", "raise SystemExit(7)"])
        await farm.registry.put(keys.service_settings("torn"), b"{")
        await farm.wish("torn", {"1": 1})
        await farm.publish(wish={"1": 1})
        agent = farm.agent()
        await farm.passing(1)

        def broken(report):
            units = {unit.service: unit for unit in report.units}
            all_there = units.keys() == {"crash", "fence", "goat"} and units["crash"].restarts >= 1
            return all_there and units["goat"].state == "healthy"

        report = await farm.report(lambda r: broken(r) and states(r).count("backoff") == 2)
        crash, fence, _ = report.units
        assert fence.reason == "cannot start no-such-program: there is no such program here"
        assert "correct the service's `command`" in fence.remedy
        assert crash.reason == "process exited with status 7"
        assert await farm.instances(lambda _: True, "crash") == []
        # Settings that cannot be read any more: the last ones stay.
        await farm.registry.put(keys.service_settings("goat"), b"{")
        await farm.wish("goat", {"1": 2})
        await farm.passing(2)
        await farm.stop(agent)


async def test_two_hosts_share_the_slots_and_one_takes_over_what_the_other_gave_back(farming):
    async with farming() as farm:
        meadow, _ = farm.agent("meadow"), farm.agent("barn")
        for host in ("meadow", "barn"):
            await farm.report(lambda _: True, host)
        holders = set()

        def both_hold(slots):
            holders.update(json.loads(pair.data)["host"] for pair in slots.values())
            return holders == {"meadow", "barn"}

        sharing = farm.tasks.create_task(farm.slots(both_hold))
        await farm.publish(wish={"1": 4})
        await sharing
        # Both choose ports of one machine here: who loses a race for one gives the slot up, and either claims it
        # anew. So how many each has in the end is not said.
        await farm.instances(lambda found: [one.healthy for one in found] == [True] * 4)
        assert sum(len(farm.running(host)) for host in ("meadow", "barn")) == 4
        await farm.stop(meadow)
        await farm.report(lambda report: states(report) == ["healthy"] * 4, "barn")
        assert len(await farm.passing(4)) == 4


async def test_an_agent_whose_hosts_name_another_one_has_claims_nothing_until_it_is_free(farming, tmp_path):
    """Both would call their instances the same, and the catalog has one of each name."""
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        first = farm.agent("meadow")
        await farm.passing(1)
        twin = tmp_path / "twin"
        second = farm.tasks.create_task(
            run(farm.address, host="meadow", state_dir=twin, folder=farm.folder, handover=asyncio.Event())
        )
        farm.started.append(second)
        sessions = Watch(farm.registry, "/v1/session/list")
        await farm._seen(sessions, lambda answer: json.loads(answer.body), lambda found: len(found) == 2)
        await farm.wish("goat", {"1": 4})
        report = await farm.report(lambda report: states(report) == ["healthy"] * 4)
        assert len(farm.running()) == 4
        assert marked(str(twin)) == []
        await farm.stop(first)
        after = await farm.report(
            lambda after: states(after) == ["healthy"] * 4 and after.since > report.since
        )
        assert {unit.pid for unit in after.units} == {
            found.identity.pid for found in marked(str(twin)) if found.leader
        }
        await farm.stop(second)


async def test_a_port_that_is_taken_meanwhile_is_given_up(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1}, command=["{python}", "-c", "raise SystemExit(7)"])
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["backoff"])
        port = report.units[0].port
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
        async with server:
            await farm.report(lambda report: [unit.port for unit in report.units] == [port + 1])


async def test_a_stranger_who_answers_on_its_port_does_not_make_it_healthy(farming):
    """The instance never listens; a program that comes later on the same port answers 200 to the probe."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with farming() as farm:
        await farm.publish(wish={"1": 1}, command=["{python}", "-c", "import time; time.sleep(60)"])
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["starting"])
        port = report.units[0].port
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            why = f"port {port} is answered by another program"
            report = await farm.report(lambda report: report.units[0].reason == why)
        assert states(report) == ["starting"]
        assert await farm.instances(lambda _: True) == []


async def test_a_drain_that_the_agents_death_broke_off_is_ended_by_the_next(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1}, stop=SLOW_DRAIN)
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        pid = farm.running()[one.id]
        await farm.router("r1", instances={one.id: InstanceTraffic(state="serving")})
        await farm.wish("goat", {"1": 0})
        await farm.instances(lambda found: found[0].health is Health.MAINTENANCE)
        await farm.crash(process)
        await farm.wish("goat", {"1": 1})
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["draining"])
        assert report.units[0].pid == pid
        _, index = await farm.registry.health("goat")
        await farm.router("r1", catalog_index=index)
        await farm.report(lambda r: states(r) == ["healthy"] and r.units[0].pid != pid)
        await farm.passing(1)


async def test_an_agent_killed_before_it_wrote_the_pid_finds_the_process(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        pids = farm.running()
        await farm.crash(process)
        path = farm.state("meadow") / "units" / f"{one.id}.json"
        path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | {"identity": None}))
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["healthy"])
        assert {unit.instance: unit.pid for unit in report.units} == pids


async def test_a_process_of_no_known_unit_is_stopped(farming):
    async with farming() as farm:
        await farm.publish(wish={"1": 1})
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        (stray,) = [found.identity for found in marked(str(farm.state("meadow")))]
        await farm.crash(process)
        (farm.state("meadow") / "units" / f"{one.id}.json").unlink()
        farm.agent()
        report = await farm.report(lambda r: states(r) == ["healthy"] and r.units[0].pid != stray.pid)
        assert report.units[0].port != one.port or not runs(stray)
        async with asyncio.timeout(20):
            while runs(stray):
                await asyncio.sleep(0.05)


async def test_an_old_maintenance_mark_under_its_id_does_not_stay(farming):
    async with farming() as farm:
        stale = f"goat-1-meadow-{farm.first_port}"
        old = registration(
            stale, "goat", "1", address="127.0.0.1", port=farm.first_port, meta={}, status="critical"
        )
        await farm.registry.register(old)
        await farm.registry.maintenance(stale, enable=True, reason="a stop that could not be told of")
        await farm.publish(wish={"1": 1})
        farm.agent()
        (one,) = await farm.passing(1)
        assert one.id == stale


async def test_children_of_a_killed_instance_do_not_keep_its_port(farming):
    async with farming() as farm:
        goat = f"import subprocess, sys; subprocess.run([sys.executable, {str(GOAT)!r}, *sys.argv[1:]])"
        await farm.publish(wish={"1": 1}, command=["{python}", "-c", goat, "{address}", "{port}"])
        farm.agent()
        (one,) = await farm.passing(1)
        before = {found.identity.pid for found in marked(str(farm.state("meadow")))}
        assert len(before) == 2
        farm.kill(one.id)
        await farm.instances(lambda found: found[0].health is not Health.PASSING)
        assert [again.id for again in await farm.passing(1)] == [one.id]
        assert before.isdisjoint(found.identity.pid for found in marked(str(farm.state("meadow"))))


async def test_a_withdrawn_instance_is_not_registered_again(farming):
    """An emptied registry has forgotten the maintenance too: it would come back as one that takes requests."""
    async with farming() as farm:
        template = registration("g", "goat", "1", address="127.0.0.1", port=1, meta={}, status="critical")
        entry = Entry(farm.registry, template, listed=False)

        async def kept(limit_s):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await entry.keep()

        entry.say("passing", "GET /health: 200")
        await kept(1.0)
        assert len(await farm.passing(1)) == 1
        await entry.withdraw("git asks for 0")
        await farm.registry.deregister("g")
        await kept(2.0)
        assert await farm.instances(lambda _: True) == []
