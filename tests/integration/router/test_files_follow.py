"""HAProxy is told before the files are written: what a stop in between leaves is mended from the decision (I1, I3)."""

from __future__ import annotations

import os
import signal

import pytest

from milkrun.errors import DataPlaneError
from milkrun.router import disk
from milkrun.router.diff import SetShares, diff
from milkrun.router.haproxy import binary
from milkrun.router.haproxy.process import Process
from milkrun.router.haproxy.socket import RuntimeSocket


async def served(site, make_state):
    """Two instances, of which the first version's has all the traffic; and the wish that the second's has it."""
    a, b = site.app("a"), site.app("b")
    now = make_state({"v1": 10_000}, v1=[a.server()], v2=[b.server()])
    await site.plane.start(make_state({}))
    await site.converge(now)
    return now, make_state({"v2": 10_000}, v1=[a.server()], v2=[b.server()])


async def test_a_router_that_ends_before_it_wrote_the_files_has_told_haproxy_and_its_successor_writes_them(
    site, make_state, monkeypatch
):
    _, wanted = await served(site, make_state)
    written = (site.folder / "goat.map").read_text()

    def ends(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.files, "replace", ends)
    with pytest.raises(DataPlaneError, match="cannot be written"):
        await site.plane.apply(diff(await site.plane.observe(), wanted), wanted)
    monkeypatch.undo()
    assert {await site.ask() for _ in range(5)} == {"200 b"}
    assert (site.folder / "goat.map").read_text() == written

    site.plane = site.another_plane()
    await site.plane.start(wanted)  # the decision was on disk before: the successor knows it
    await site.converge(wanted)

    assert site.plane.reloads == 0
    process = Process(site.folder, binary.find())
    assert process.adopt()
    os.killpg(process.pid, signal.SIGKILL)
    await site.eventually(lambda: not process.running())
    await process.start([])
    assert {await site.ask() for _ in range(5)} == {"200 b"}
    await process.stop()


async def test_a_haproxy_that_does_not_answer_starts_again_as_it_should_be(site, make_state, monkeypatch):
    _, wanted = await served(site, make_state)
    observed = await site.plane.observe()

    async def silent(self, command, **more):
        raise DataPlaneError("HAProxy's socket does not answer")

    monkeypatch.setattr(RuntimeSocket, "ask", silent)
    with pytest.raises(DataPlaneError, match="does not answer"):
        await site.plane.apply(diff(observed, wanted), wanted)
    monkeypatch.undo()

    assert (site.folder / "goat.map").read_text() == "0:9999 goat.b\n"


async def test_traffic_moves_before_the_disk_is_asked(site, make_state, monkeypatch):
    _, wanted = await served(site, make_state)
    operations = diff(await site.plane.observe(), wanted)
    assert any(isinstance(operation, SetShares) for operation in operations)
    order = []
    ask, replace = RuntimeSocket.ask, disk.files.replace

    async def asked(self, command, **more):
        order.append(command.partition(" ")[0])
        return await ask(self, command, **more)

    def replaced(path, data):
        order.append(path.name)
        replace(path, data)

    monkeypatch.setattr(RuntimeSocket, "ask", asked)
    monkeypatch.setattr(disk.files, "replace", replaced)
    await site.plane.apply(operations, wanted)

    assert order.index("prepare") < order.index("goat.map")
