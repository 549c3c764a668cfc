"""What changes when a service has very many instances: HAProxy's descriptors, and what is read at each look."""

from __future__ import annotations

import asyncio
import resource
import subprocess

import pytest

from milkrun.model import InstanceId
from milkrun.router.desired import Mode, Server
from milkrun.router.haproxy import binary, plane, service

FEW = 256
LINE = "  no strict-limits\n"


def among_few_descriptors(folder) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [binary.find().path, "-db", "-f", "haproxy.cfg"],
        cwd=folder,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW)),  # noqa: PLW1509
    )


async def test_haproxy_serves_from_its_file_also_with_too_few_descriptors_for_its_probes(site, make_state):
    app = site.app("a")
    servers = [
        Server(id=InstanceId(f"a-{number}"), address="127.0.0.1", port=app.port) for number in range(2 * FEW)
    ]
    await site.plane.start(make_state({"v1": 10_000}, v1=servers))
    await site.plane.stop()
    file = site.folder / "haproxy.cfg"

    process = among_few_descriptors(site.folder)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await site.ask()
                    break
                except ConnectionRefusedError:
                    assert process.poll() is None
                    await asyncio.sleep(0.02)
        assert answer == "200 a"
    finally:
        process.kill()
        process.wait()

    assert LINE in file.read_text()
    file.write_text(file.read_text().replace(LINE, ""))
    assert among_few_descriptors(site.folder).wait(20) == 1  # without it, it does not even start


@pytest.mark.parametrize("counted", [0, service.COUNTED_AT_MOST])
async def test_among_very_many_who_drains_is_still_watched_until_its_last_request(
    site, make_state, monkeypatch, counted
):
    monkeypatch.setattr(service, "COUNTED_AT_MOST", counted)
    a, b = site.app("a"), site.app("b")
    await site.plane.start(make_state({"v1": 10_000}, v1=[a.server()]))

    async with asyncio.TaskGroup() as tasks:
        long = tasks.create_task(site.ask("/?for=1"))
        await site.eventually(lambda: len(site.answered()) == 1)
        observed = await site.converge(make_state({"v1": 10_000}, v1=[b.server()]))
        assert observed.versions["v1"]["a"].server.mode is Mode.DRAIN
        assert observed.versions["v1"]["a"].in_flight == 1

    assert long.result() == "200 a"
    assert list((await site.converge(make_state({"v1": 10_000}, v1=[b.server()]))).versions["v1"]) == ["b"]


async def test_only_what_brings_very_many_at_once_takes_one_reload(site, make_state, monkeypatch):
    monkeypatch.setattr(plane, "ADDED_AT_MOST", 2)
    apps = [site.app(name) for name in "abcdef"]
    await site.plane.start(make_state({}))

    await site.converge(make_state({"v1": 10_000}, v1=[app.server() for app in apps[:2]]))
    assert site.plane.reloads == 0

    await site.converge(make_state({"v1": 10_000}, v1=[app.server() for app in apps[:5]]))
    assert site.plane.reloads == 1
    assert {await site.ask() for _ in range(20)} == {f"200 {app.name}" for app in apps[:5]}

    await site.converge(make_state({"v1": 10_000}, v1=[app.server() for app in apps]))
    assert site.plane.reloads == 1
