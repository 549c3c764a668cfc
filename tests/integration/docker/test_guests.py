"""Containers that somebody else started, on a real engine: registered, drained and taken out."""

from __future__ import annotations

import asyncio

import pytest
from ports import free_port, free_ports

from milkrun.model import Health

pytestmark = pytest.mark.needs("docker")


class Neighbour:
    """Whoever starts containers by hand."""

    def __init__(self, docker) -> None:
        self._docker = docker

    async def runs(
        self, name: str, *arguments: str, port: int = 8080, version: str = "0.0.1", mood: str = ""
    ) -> None:
        variables = {"MILKRUN_ADDRESS": "0.0.0.0", "MILKRUN_PORT": str(port), "MOOD": mood}
        words = [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
        await self.does("run", "--detach", "--name", name, *words, *arguments, f"goat:{version}")

    async def does(self, *arguments: str) -> str:
        return (await asyncio.to_thread(self._docker.docker, *arguments)).stdout.decode()


@pytest.fixture
def neighbour(docker) -> Neighbour:
    return Neighbour(docker)


def labels(**values: str) -> list[str]:
    return [word for key, value in values.items() for word in ("--label", f"milkrun.{key}={value}")]


GOAT = labels(service="goat", version="0.0.1", health="/health")


async def test_it_is_registered_by_its_labels_and_taken_out_when_it_ends(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=True)
        port, other = free_port(), free_port()
        await neighbour.runs("first", "--publish", f"127.0.0.1:{port}:8080", *GOAT)
        agent = farm.agent()
        (one,) = await farm.passing(1)
        assert (one.id, one.version) == (f"goat-0.0.1-meadow-{port}", "0.0.1")
        assert (one.address, one.port) == ("127.0.0.1", port)
        # One that comes while the agent runs, in registrator's words, in the host's network, without a probe.
        old = ["--env", f"SERVICE_{other}_NAME=goat", "--label", "SERVICE_TAGS=version=0.0.2,brown"]
        await neighbour.runs("second", "--network", "host", *old, port=other, version="0.0.2")
        assert {found.version for found in await farm.passing(2)} == {"0.0.1", "0.0.2"}
        listed, _ = await farm.registry.health("goat")
        assert sorted(entry.service.tags for entry in listed) == [
            ["version=0.0.1"],
            ["version=0.0.2", "brown"],
        ]
        await neighbour.does("kill", "second")
        assert [found.id for found in await farm.instances(lambda found: len(found) == 1)] == [one.id]
        await neighbour.does("start", "second")
        await farm.passing(2)
        await farm.stop(agent)
        assert await farm.instances(lambda _: True) == []
        assert await neighbour.does("ps", "--format", "{{.Names}}") == "second\nfirst\n"


async def test_it_is_drained_when_docker_stops_it(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=True)
        await farm.router("lb", catalog_index=1)
        farm.agent()
        first, second = sorted(free_ports(2))
        here = ("--network", "host", *GOAT)
        await neighbour.runs("slow", *here, *labels(port=str(first)), port=first, mood="stubborn")
        (one,) = await farm.passing(1)
        await neighbour.does("kill", "--signal", "HUP", "slow")  # other signals mean other things
        await neighbour.runs("next", *here, *labels(port=str(second)), port=second)  # comes after it
        await farm.passing(2)
        await neighbour.does("kill", "--signal", "TERM", "slow")  # as `docker stop` does first
        seen, _ = await farm.instances(lambda found: found[0].health is Health.MAINTENANCE)
        assert (seen.id, seen.reason) == (one.id, "its container is told to end")
        assert "slow" in await neighbour.does("ps", "--format", "{{.Names}}")
        await neighbour.does("kill", "slow")
        await farm.instances(lambda found: [other.port for other in found] == [second])


async def test_its_probe_decides_when_it_names_one(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=True)
        port = free_port()
        farm.agent()
        await neighbour.runs("goat", "--publish", f"127.0.0.1:{port}:8080", *GOAT)
        await farm.passing(1)
        await neighbour.does("exec", "goat", "sh", "-c", "echo > /www/health.new && rm /www/health")
        (seen,) = await farm.instances(lambda found: found[0].health is not Health.PASSING)
        assert (seen.health, seen.reason) == (Health.CRITICAL, "GET /health: 404")


async def test_the_next_agent_takes_out_what_ended_meanwhile_and_keeps_the_rest(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=True)
        ports = [free_port() for _ in range(3)]
        for number, port in enumerate(ports):
            await neighbour.runs(f"goat{number}", "--publish", f"127.0.0.1:{port}:8080", *GOAT)
        process = farm.agent_process()
        await farm.passing(3)
        await farm.crash(process)
        await neighbour.does("rm", "--force", "goat0")
        await neighbour.does("kill", "goat1")
        await neighbour.does("start", "goat1")
        farm.agent()
        two = await farm.instances(lambda found: len(found) == 2)
        assert {one.port for one in two} == set(ports[1:])
        await farm.passing(2)


async def test_what_cannot_be_registered_is_told(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=True)
        await neighbour.runs("shy", *labels(service="goat", port="8080"))
        await neighbour.runs("loud", "--publish", f"{free_port()}:8080", *labels(service="GOAT!"))
        await neighbour.runs("nobody")
        farm.agent()
        report = await farm.report(lambda report: len(report.alarms) == 2)
        assert sorted(report.alarms) == [
            "container loud is not registered: 'GOAT!' is not a service name",
            "container shy is not registered: its port 8080 is not published",
        ]
        await neighbour.does("rm", "--force", "shy", "loud")
        await farm.report(lambda report: report.alarms == [])


async def test_an_engine_that_was_away_is_looked_at_anew(farming, neighbour, docker):
    async with farming() as farm:
        await farm.publish(guests=True)
        port = free_port()
        await neighbour.runs("goat", "--network", "host", *GOAT, *labels(port=str(port)), port=port)
        farm.agent()
        (one,) = await farm.passing(1)
        docker.kill()
        report = await farm.report(lambda report: report.alarms != [])
        assert report.alarms[0].endswith("guests stay as they were last seen")
        assert await farm.instances(lambda _: True) == [one]
        docker.start()  # it ends what it finds running
        await farm.report(lambda report: report.alarms == [])
        await farm.instances(lambda found: found == [])
        await neighbour.does("start", "goat")
        await farm.passing(1)


async def test_it_is_asked_for_by_the_environments_settings(farming, neighbour):
    async with farming() as farm:
        await farm.publish(guests=False)
        port = free_port()
        await neighbour.runs("goat", "--network", "host", *GOAT, *labels(port=str(port)), port=port)
        farm.agent()
        await farm.report(lambda _: True)
        assert await farm.instances(lambda _: True) == []
        await farm.publish(guests=True)
        await farm.passing(1)
        await farm.publish(guests=False)
        await farm.instances(lambda found: found == [])
