"""Instances as containers of a real engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from milkrun.agent.units.docker import Engine
from milkrun.model import Health
from milkrun.settings.unit import DockerSettings

pytestmark = pytest.mark.needs("docker")

IMAGE = "goat:{version}"


def states(report):
    return [unit.state for unit in report.units]


async def get(instance, path: str) -> str:
    async with aiohttp.request("GET", f"http://{instance.address}:{instance.port}{path}") as reply:
        return await reply.text()


async def written(path: Path, text: str) -> str:
    """What is in the file, once the text is."""
    async with asyncio.timeout(20):
        while text not in path.read_text():
            await asyncio.sleep(0.02)
    return path.read_text()


@pytest.mark.parametrize(
    "settings",
    [
        DockerSettings(image=IMAGE, network="host"),
        DockerSettings(
            image=IMAGE, network="bridge", port=8080, labels={"farm": "dairy"}, memory_mb=32, init=True
        ),
    ],
    ids=["host", "published"],
)
async def test_it_runs_registers_and_stops_what_git_asks_for(farming, docker, settings):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1, "0.0.2": 1}, docker=settings)
        agent = farm.agent()
        first, second = await farm.passing(2)
        assert {first.id, second.id} == docker.names(f"label=milkrun.state={farm.state('meadow')}")
        seen = docker.inspect(first.id)
        assert seen["Config"]["Image"] == f"goat:{first.version}"
        assert seen["Config"]["Labels"].items() >= {"milkrun.instance": first.id, **settings.labels}.items()
        assert seen["HostConfig"]["Memory"] == settings.memory_mb << 20
        assert await get(first, "/health") == "ok\n"
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        unit = next(unit for unit in report.units if unit.instance == first.id)
        assert unit.pid == seen["State"]["Pid"]
        assert await written(Path(unit.log), "milked") == f"milked by {first.id}\n"
        await farm.stop(agent)
        assert docker.names() == set()
        assert await farm.instances(lambda _: True) == []
        assert Path(unit.log).read_text() == f"milked by {first.id}\ngoat ends\n"
        assert [path.suffix for path in Path(unit.log).parent.iterdir()] == [".log", ".log"]


async def test_a_killed_container_is_critical_at_once_and_comes_back_in_its_place(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1}, docker=DockerSettings(image=IMAGE))
        farm.agent()
        (one,) = await farm.passing(1)
        before = docker.inspect(one.id)["Id"]
        docker.docker("kill", one.id)
        (seen,) = await farm.instances(lambda instances: instances[0].health is not Health.PASSING)
        assert seen.reason == "container exited with status 137"
        assert [again.id for again in await farm.passing(1)] == [one.id]
        assert docker.inspect(one.id)["Id"] != before
        report = await farm.report(lambda report: states(report) == ["healthy"])
        assert report.units[0].restarts == 1


@pytest.mark.parametrize(
    ("mood", "memory_mb", "reason"),
    [
        ("crash", 0, "container exited with status 3"),
        ("greedy", 16, "container killed: it used more memory than it may (status 137)"),
    ],
)
async def test_how_it_ended_is_told(farming, mood, memory_mb, reason):
    async with farming() as farm:
        settings = DockerSettings(image=IMAGE, network="host", memory_mb=memory_mb)
        await farm.goats({"0.0.1": 1}, mood=mood, docker=settings)
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["backoff"])
        assert report.units[0].reason == reason
        assert "milked by goat-0.0.1-meadow" in await written(Path(report.units[0].log), "milked by")


@pytest.mark.parametrize(
    ("settings", "reason", "remedy"),
    [
        (
            DockerSettings(image="cow:{version}"),
            "the image cow:0.0.1 is not on this host",
            "docker pull cow:0.0.1",
        ),
        (
            DockerSettings(image=IMAGE, volumes=["/no/hay:/hay"]),
            "bind source path does not exist: /no/hay",
            "",
        ),
        (DockerSettings(image=IMAGE, command=["/bin/moo"]), '"/bin/moo": stat /bin/moo: no such file', ""),
    ],
    ids=["image", "volume", "command"],
)
async def test_what_cannot_be_started_says_why_and_leaves_nothing(farming, docker, settings, reason, remedy):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1}, docker=settings)
        agent = farm.agent()
        report = await farm.report(
            lambda report: states(report) == ["backoff"] and report.units[0].reason != ""
        )
        assert reason in report.units[0].reason
        assert remedy in report.units[0].remedy
        await farm.stop(agent)
        assert docker.names() == set()


async def test_an_agent_that_was_killed_is_followed_by_one_that_adopts(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 2})
        process = farm.agent_process()
        before = await farm.passing(2)
        ids = {one.id: docker.inspect(one.id)["Id"] for one in before}
        await farm.crash(process)
        agent = farm.agent()
        report = await farm.report(lambda report: states(report) == ["healthy"] * 2)
        assert [unit.restarts for unit in report.units] == [0, 0]
        assert {one.id: docker.inspect(one.id)["Id"] for one in before} == ids
        assert await farm.passing(2) == before
        logs = [Path(unit.log) for unit in report.units]
        await farm.stop(agent)
        assert docker.names() == set()
        # Each line once: the second agent went on where the first one was.
        assert [log.read_text().splitlines()[1:] for log in logs] == [["goat ends"]] * 2


async def test_a_container_that_was_made_and_not_written_down_is_found_again(farming, docker):
    """kill -9 between create and record, and between record and create: the name and labels decide."""
    async with farming() as farm:
        await farm.goats({"0.0.1": 1})
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        await farm.crash(process)
        record = farm.state("meadow") / "units" / f"{one.id}.json"
        written = json.loads(record.read_text())
        record.write_text(json.dumps(written | {"registered": False, "identity": None}))
        stray = ["--label", f"milkrun.state={farm.state('meadow')}", "--label", "milkrun.instance=lost"]
        docker.docker(
            "run", "--detach", "--name", "lost", *stray, "--env", "MILKRUN_ADDRESS=127.0.0.1", "goat:0.0.1"
        )
        docker.docker("create", "--name", "other", "--label", "milkrun.state=/other", "goat:0.0.1")
        kept = docker.inspect(one.id)["Id"]
        farm.agent()
        await farm.report(lambda report: states(report) == ["healthy"])
        assert docker.inspect(one.id)["Id"] == kept
        async with asyncio.timeout(20):
            while "lost" in await asyncio.to_thread(docker.names):
                await asyncio.sleep(0.1)
        assert docker.names() == {one.id, "other"}


async def test_a_container_that_died_with_its_agent_is_replaced(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1})
        process = farm.agent_process()
        (one,) = await farm.passing(1)
        await farm.crash(process)
        old = docker.inspect(one.id)["Id"]
        docker.docker("kill", one.id)
        farm.agent()
        await farm.report(lambda report: states(report) == ["healthy"])
        assert docker.inspect(one.id)["Id"] != old


async def test_an_instance_that_does_not_end_is_killed(farming, docker):
    async with farming() as farm:
        from milkrun.settings.service import StopSettings

        await farm.goats({"0.0.1": 1}, mood="stubborn", stop=StopSettings(drain_limit_s=10, stop_limit_s=0.3))
        agent = farm.agent()
        await farm.passing(1)
        await farm.stop(agent)
        assert docker.names() == set()


async def test_the_signal_that_it_ends_by_can_be_chosen(farming, docker):
    async with farming() as farm:
        from milkrun.settings.service import StopSettings

        await farm.goats({"0.0.1": 1}, stop=StopSettings(drain_limit_s=10, stop_limit_s=5, signal="QUIT"))
        agent = farm.agent()
        await farm.passing(1)
        report = await farm.report(lambda report: states(report) == ["healthy"])
        await farm.stop(agent)
        assert Path(report.units[0].log).read_text().endswith("goat quits\n")


async def test_it_is_in_maintenance_while_it_still_serves(farming, docker):
    """Lame duck: the routers see it leave first, then it is told to end."""
    async with farming() as farm:
        await farm.goats({"0.0.1": 1})
        await farm.router("lb", catalog_index=1)  # says nothing newer for now: the drain waits for it
        farm.agent()
        (one,) = await farm.passing(1)
        await farm.wish("goat", {"0.0.1": 0})
        (seen,) = await farm.instances(lambda instances: instances[0].health is Health.MAINTENANCE)
        assert seen.id == one.id
        assert await get(one, "/health") == "ok\n"
        assert docker.inspect(one.id)["State"]["Running"]
        await farm.router("lb", catalog_index=1 << 40)
        await farm.instances(lambda instances: instances == [])
        assert docker.names() == set()


async def test_a_secret_is_a_file_that_only_the_instance_reads(farming, docker, tmp_path):
    async with farming() as farm:
        secret = tmp_path / "database"
        secret.write_text("hay-and-oats")
        secret.chmod(0o644)
        await farm.goats({"0.0.1": 1}, secrets={"DATABASE": str(secret)})
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["backoff"])
        assert report.units[0].reason.endswith(
            "the secret DATABASE is not given out: others may read it (mode 0644)"
        )
        assert report.units[0].remedy == f"chmod 600 {secret}"
        secret.chmod(0o600)
        (one,) = await farm.passing(1)
        assert await get(one, "/secret") == "hay-and-oats"
        seen = docker.inspect(one.id)
        assert "DATABASE_FILE=/run/secrets/DATABASE" in seen["Config"]["Env"]
        assert [mount["RW"] for mount in seen["Mounts"]] == [False]
        assert "hay-and-oats" not in json.dumps(seen)
        told = [path for path in farm.state("meadow").rglob("*") if path.is_file()]
        assert all(b"hay-and-oats" not in path.read_bytes() for path in told)
        assert "hay-and-oats" not in repr(await farm.report(lambda _: True))


async def test_it_is_started_when_those_whom_it_needs_accept(farming, docker):
    from ports import free_port

    port = free_port()
    async with farming() as farm:
        await farm.goats({"0.0.1": 1}, wait_for=[f"tcp://127.0.0.1:{port}"])
        farm.agent()
        report = await farm.report(lambda report: any(unit.reason for unit in report.units))
        assert states(report) == ["starting"]
        assert report.units[0].reason == f"waits for tcp://127.0.0.1:{port}: connection refused"
        assert docker.names() == set()
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            await farm.passing(1)


async def test_a_name_that_another_container_has_is_not_taken_from_it(farming, docker):
    async with farming() as farm:
        name = f"goat-0.0.1-meadow-{farm.first_port}"
        docker.docker("create", "--name", name, "--label", "milkrun.state=/other", "goat:0.0.1")
        theirs = docker.inspect(name)["Id"]
        await farm.goats({"0.0.1": 1})
        agent = farm.agent()
        report = await farm.report(lambda report: states(report) == ["backoff"])
        assert report.units[0].reason == f"another container has the name {name}"
        await farm.stop(agent)
        assert docker.inspect(name)["Id"] == theirs


async def test_who_else_answers_on_its_port_does_not_make_it_healthy(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1}, mood="deaf")
        farm.agent()
        report = await farm.report(lambda report: [unit.pid != 0 for unit in report.units] == [True])

        async def answer(_, writer):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        port = report.units[0].port
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            report = await farm.report(lambda report: "answered by" in report.units[0].reason)
        assert states(report) == ["starting"]
        assert report.units[0].reason == f"port {port} is answered by another program"


async def test_an_engine_that_is_killed_takes_no_instance_with_it(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1})
        farm.agent()
        (one,) = await farm.passing(1)
        docker.kill()
        report = await farm.report(lambda report: "does not answer" in report.units[0].reason)
        assert states(report) == ["healthy"]
        assert await get(one, "/health") == "ok\n"
        # Without live-restore an engine ends at its start what it finds running.
        docker.start()
        report = await farm.report(lambda report: states(report) == ["healthy"] and report.units[0].restarts)
        assert report.units[0].reason == ""
        assert [again.id for again in await farm.passing(1)] == [one.id]


async def test_an_agent_that_starts_without_the_engine_waits_for_it(farming, docker):
    async with farming() as farm:
        await farm.goats({"0.0.1": 1})
        docker.stop()
        farm.agent()
        report = await farm.report(lambda report: states(report) == ["backoff"])
        assert report.units[0].reason == f"there is no Docker engine at {docker.socket}"
        docker.start()
        await farm.passing(1)


async def test_what_answers_at_the_socket_and_is_no_engine_is_told(tmp_path):
    from milkrun.agent.units.docker import EngineAway

    path = tmp_path / "s"

    async def other(reader, writer):
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()

    async with await asyncio.start_unix_server(other, path), Engine(path) as engine:
        with pytest.raises(EngineAway, match="is no Docker engine"):
            await engine.inspect("goat")
