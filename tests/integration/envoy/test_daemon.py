"""`milkrun router` with `data_plane = "envoy"`: from the registry to users, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from fleet import Fleet, a_fleet

from milkrun.host.process import Identity
from milkrun.testing.registry import embedded_registry


@pytest.fixture
async def fleet(tmp_path):
    async with embedded_registry(tmp_path / "registry") as address, a_fleet(tmp_path, address) as found:
        await found.settle(data_plane="envoy")
        yield found
    # The goats' connections end with the data plane that had them; their tasks are to see that.
    goats = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "answer"]
    await asyncio.gather(*goats)


def pid(fleet: Fleet) -> int:
    file = fleet.state / "envoy.process.json"
    return msgspec.json.decode(file.read_bytes(), type=Identity).pid


async def test_envoy_comes_back_by_itself_while_the_registry_is_dead(fleet):
    await fleet.goat("a", "0.0.1")
    await fleet.goat("b", "0.0.2")
    await fleet.weigh(1, {"0.0.1": 1, "0.0.2": 1})
    async with fleet.router():
        await fleet.reported(lambda report: report.generation == 1 and not report.drift)
        await fleet.between.down()
        first = pid(fleet)

        os.kill(first, signal.SIGKILL)

        while pid(fleet) == first or await _refused(fleet):
            await asyncio.sleep(0.02)
        assert set(await fleet.answers()) == {"a", "b"}


async def test_a_cold_start_without_a_registry_serves_the_last_good_state(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router():
        await fleet.serves("a")
    await fleet.between.down()

    async with fleet.router():
        while await _refused(fleet):
            await asyncio.sleep(0.02)
        assert set(await fleet.answers()) == {"a"}


async def test_the_next_router_takes_the_running_envoy_over(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router(hand_over=True):
        await fleet.serves("a")
        first = pid(fleet)
    assert set(await fleet.answers()) == {"a"}

    async with fleet.router():
        await fleet.serves("a")
        assert pid(fleet) == first
    assert not Path(f"/proc/{first}").exists()


async def test_a_router_that_is_stopped_before_it_knows_where_it_stands_stops_envoy_too(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router(hand_over=True):
        await fleet.serves("a")
        first = pid(fleet)

    async with fleet.router():
        await asyncio.sleep(0)

    assert not Path(f"/proc/{first}").exists()


async def test_another_data_plane_takes_the_place_of_the_former_one(fleet):
    await fleet.goat("a", "0.0.1")
    async with fleet.router(hand_over=True):
        await fleet.reported(lambda report: report.data_plane.startswith("envoy") and not report.drift)
        first = pid(fleet)

        await fleet.settle()

        await fleet.reported(lambda report: report.data_plane.startswith("haproxy") and not report.drift)
        assert set(await fleet.answers()) == {"a"}
        assert not Path(f"/proc/{first}").exists()
        master = fleet.master()
    await fleet.settle(data_plane="envoy")
    async with fleet.router():
        await fleet.reported(lambda report: report.data_plane.startswith("envoy") and not report.drift)
        assert set(await fleet.answers()) == {"a"}
        assert not Path(f"/proc/{master}").exists()


async def test_a_certificate_is_renewed_and_a_bad_one_is_said(fleet, tmp_path):
    folder, ca = tmp_path / "pem", trustme.CA()
    folder.mkdir()
    context = ssl.create_default_context()
    ca.configure_trust(context)

    def put(data: bytes) -> None:
        (folder / ".draft").write_bytes(data)
        (folder / ".draft").replace(folder / "shop.pem")

    async def serial() -> str:
        _, writer = await asyncio.open_connection(*fleet.listen, ssl=context, server_hostname="shop.example")
        writer.close()
        return writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]

    put(ca.issue_cert("shop.example").private_key_and_cert_chain_pem.bytes())
    await fleet.goat("a", "0.0.1")
    await fleet.settle(data_plane="envoy", certificates=str(folder))
    async with fleet.router():
        await fleet.serves("a")
        before = await serial()

        put(ca.issue_cert("shop.example").private_key_and_cert_chain_pem.bytes())

        async with asyncio.timeout(30):
            while await serial() == before:
                await asyncio.sleep(0.02)
        put(b"no certificate")
        report = await fleet.reported(lambda report: report.alarms)
        assert "'shop.pem' is refused" in report.alarms[0]
        assert report.reloads == 0


async def _refused(fleet: Fleet) -> bool:
    try:
        return await fleet.ask() == "closed"
    except OSError:
        return True
