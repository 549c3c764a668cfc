"""Acknowledged means durable: whatever was answered is there after kill -9, and nothing is half there."""

from __future__ import annotations

import asyncio
import itertools

from milkrun.consul import wire
from milkrun.consul.client import kv_set
from milkrun.errors import MilkrunError

WRITERS = 16
KILLS = 3


async def write_on(registry, writer, acknowledged, begun):
    """Writes pairs of keys in transactions, and single ones, until nobody answers any more."""
    for number in itertools.count():
        pair, single = f"{writer}/{number}", f"single/{writer}"
        begun[writer] = number
        try:
            value = str(number).encode()
            await registry.txn([kv_set(f"left/{pair}", value), kv_set(f"right/{pair}", value)])
            acknowledged["pairs"].add(pair)
            assert await registry.put(single, value)
            acknowledged["singles"][single] = number
        except MilkrunError:
            return


async def test_nothing_acknowledged_is_lost_and_nothing_is_half_there(start, tmp_path, unused_tcp_port):
    acknowledged = {"pairs": set(), "singles": {}}
    index = 1
    for round_ in range(KILLS):
        begun: dict[str, int] = {}
        async with start(tmp_path, unused_tcp_port) as running, asyncio.TaskGroup() as tasks:
            for writer in range(WRITERS):
                tasks.create_task(write_on(running.registry, f"{round_}-{writer}", acknowledged, begun))
            enough = len(acknowledged["pairs"]) + 200
            while len(acknowledged["pairs"]) < enough:
                await asyncio.sleep(0.005)
            await running.kill()
        async with start(tmp_path, unused_tcp_port) as running:
            left = {each.key.removeprefix("left/"): each for each in await running.registry.entries("left/")}
            right = {
                each.key.removeprefix("right/"): each for each in await running.registry.entries("right/")
            }
            singles = {each.key: int(each.data) for each in await running.registry.entries("single/")}
            assert left.keys() == right.keys(), "a transaction is half there"
            assert acknowledged["pairs"] <= left.keys(), "an acknowledged transaction is lost"
            unanswered = left.keys() - acknowledged["pairs"]
            assert unanswered <= {f"{writer}/{number}" for writer, number in begun.items()}
            for key, number in acknowledged["singles"].items():
                assert singles[key] in (number, number + 1), f"{key} went back or ahead"
            newest = (await running.registry.ask("GET", "/v1/kv/", params={"recurse": ""})).index
            assert newest >= max(each.modify_index for each in left.values())
            assert newest > index, "the index is never used twice"
            index = newest
            acknowledged["pairs"] = set(left)
            acknowledged["singles"] = singles


async def test_services_checks_and_sessions_live_on_with_their_whole_time(start, tmp_path, unused_tcp_port):
    registration = wire.Registration(
        id="goat-1",
        name="goat",
        address="127.0.0.1",
        port=80,
        tags=["version=1"],
        check=wire.TtlCheck(check_id="alive", name="alive", ttl="15s"),
    )
    async with start(tmp_path, unused_tcp_port) as running:
        registry = running.registry
        await registry.register(registration)
        await registry.report("alive", "passing", "well")
        session = await registry.create_session("me", ttl_s=10, behavior="delete", lock_delay_s=0)
        assert await registry.put("held", b"1", acquire=session)
        before, index = await registry.health("goat")
        await running.kill()
    async with start(tmp_path, unused_tcp_port) as running:
        registry = running.registry
        after, later = await registry.health("goat")
        assert after == before
        assert later >= index
        assert await registry.renew_session(session)
        entry = await registry.get("held")
        assert entry is not None
        assert entry.session == session
        await registry.report("alive", "warning", "still here")


async def test_a_disk_that_fails_ends_the_process_and_loses_nothing(start, tmp_path, unused_tcp_port):
    # A limit on the size of files makes the system refuse a write in the middle of a commit.
    acknowledged = []
    async with start(tmp_path, unused_tcp_port, file_bytes_at_most=300_000) as running:
        assert running.process.stderr
        try:
            for number in range(1000):
                await running.registry.put(f"{number:04}", b"x" * 4000)
                acknowledged.append(f"{number:04}")
        except MilkrunError as error:
            why = str(error)
        async with asyncio.timeout(10):
            assert await running.process.wait() == 1
        told = (await running.process.stderr.read()).decode()
    assert len(acknowledged) > 10
    assert "cannot be written or read" in why
    assert "the disk failed; the registry ends" in told
    assert "Traceback" not in told
    async with start(tmp_path, unused_tcp_port) as running:
        keys = [each.key for each in await running.registry.entries("")]
        assert keys[: len(acknowledged)] == acknowledged
        assert len(keys) <= len(acknowledged) + 1
