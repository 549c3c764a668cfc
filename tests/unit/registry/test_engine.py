from __future__ import annotations

import asyncio

import pytest

from milkrun.errors import MilkrunError, StorageFailed
from milkrun.registry import commands, kv, topics
from milkrun.registry.access.authority import ALL, Authority
from milkrun.registry.engine import Engine
from milkrun.registry.nouns import CheckSpec, Node, Service
from milkrun.registry.parked import Woken
from milkrun.registry.refusal import Refused
from milkrun.registry.state import Machine
from milkrun.registry.storage import DiskFull, Storage

OWN = Node(id="1" * 36, node="n1", address="127.0.0.1")


class Counting(Storage):
    """A storage that says what it was told, and what anybody could see at that moment."""

    def __init__(self, folder, **kwargs):
        super().__init__(folder, **kwargs)
        self.commits = []
        self.watching = None

    def commit(self, rows, index):
        if self.watching:
            self.commits.append((len(rows), self.watching()))
        super().commit(rows, index)


async def test_writes_of_one_turn_share_one_commit(tmp_path):
    with Counting(tmp_path) as storage:
        engine = Engine(storage, OWN)
        storage.watching = lambda: None
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(engine.submit(commands.KvPut(f"{number}", b"1"), ALL))
        assert [count for count, _ in storage.commits] == [50]
        assert len(engine.machine.kv.under("")) == 50


async def test_nobody_is_answered_or_woken_before_the_disk_has_it(tmp_path):
    with Counting(tmp_path) as storage:
        engine = Engine(storage, OWN)
        with engine.parked.waiting(topics.key("a"), 60) as waiter:
            async with asyncio.TaskGroup() as tasks:
                put = tasks.create_task(engine.submit(commands.KvPut("a", b"1"), ALL))
                storage.watching = lambda: (put.done(), waiter.done())
                assert (await waiter).why is Woken.CHANGED
        assert storage.commits == [(1, (False, False))]


async def test_what_changes_nothing_is_not_committed(tmp_path):
    with Counting(tmp_path) as storage:
        engine = Engine(storage, OWN)
        await engine.submit(commands.KvPut("a", b"1"), ALL)
        storage.watching = lambda: None
        await engine.submit(commands.KvPut("a", b"1"), ALL)
        assert storage.commits == []


async def test_one_refusal_does_not_touch_the_others_of_its_turn(tmp_path):
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        answers = await asyncio.gather(
            engine.submit(commands.KvPut("a", b"1"), ALL),
            engine.submit(commands.KvLock("b", b"1", 0, "x"), ALL),
            engine.submit(commands.KvCas("a", b"2", 0, 0), ALL),
            return_exceptions=True,
        )
        assert (answers[0], answers[2]) == (True, False)
        assert "UUID must be 36 characters" in str(answers[1])
        assert engine.machine.kv.get("a").value == b"1"


async def test_a_full_disk_refuses_writes_and_keeps_what_was_there(tmp_path):
    with Storage(tmp_path, pages_at_most=30) as storage:
        engine = Engine(storage, OWN)
        await engine.announce()
        await engine.submit(commands.KvPut("a", b"1"), ALL)
        index = engine.machine.ledger.index
        with engine.parked.waiting(topics.key("a"), 60) as waiter:
            answers = await asyncio.gather(
                engine.submit(commands.KvPut("a", b"2"), ALL),
                engine.submit(commands.KvPut("big", b"x" * 400_000), ALL),
                return_exceptions=True,
            )
            assert all(isinstance(answer, DiskFull) for answer in answers)
            assert not waiter.done()
        assert engine.machine.ledger.index == index
        assert [(each.key, each.value) for each in engine.machine.kv.under("")] == [("a", b"1")]
        assert engine.replies.get(topics.service("x"), 1, lambda: b"new") == b"new"
        assert await engine.submit(commands.KvPut("a", b"3"), ALL) is True
        assert engine.machine.kv.get("a").modify_index == index + 1


async def test_while_the_disk_is_full_no_refused_write_reads_the_whole_state_again(tmp_path):
    with Storage(tmp_path, pages_at_most=30) as storage:
        engine = Engine(storage, OWN)
        await engine.announce()
        with pytest.raises(DiskFull):
            await engine.submit(commands.KvPut("big", b"x" * 400_000), ALL)
        machine = engine.machine
        for _ in range(3):
            with pytest.raises(DiskFull):
                await engine.submit(commands.KvPut("big", b"x" * 400_000), ALL)
        assert engine.machine is machine
        assert await engine.submit(commands.KvPut("a", b"1"), ALL) is True
        assert engine.machine is machine


async def test_after_a_failed_disk_nothing_is_answered_any_more(tmp_path):
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        await engine.submit(commands.KvPut("a", b"1"), ALL)
        storage._connection.close()
        with pytest.raises(StorageFailed, match="cannot be written"):
            await engine.submit(commands.KvPut("a", b"2"), ALL)
        assert isinstance(await engine.failed, StorageFailed)
        with pytest.raises(StorageFailed):
            await engine.submit(commands.KvPut("a", b"3"), ALL)


async def test_timers_go_off_though_they_were_set_while_the_loop_slept(tmp_path):
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        await engine.announce()
        async with asyncio.TaskGroup() as tasks:
            timers = tasks.create_task(engine.run_timers())
            await asyncio.sleep(0)
            spec = CheckSpec(check_id="c", service_id="g", ttl_s=0.05, status="passing")
            await engine.submit(commands.RegisterService(Service(id="g", service="goat"), [spec]), ALL)
            with engine.parked.waiting(topics.service("goat"), 10) as waiter:
                assert (await waiter).why is Woken.CHANGED
            assert engine.machine.catalog.checks["n1"]["c"].output == "TTL expired"
            timers.cancel()


async def test_what_is_refused_half_done_is_not_committed(tmp_path, monkeypatch):
    """No command does so; one that did has let half a restore through once."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def half(self, command, now):
        self.ledger.begin()
        kv.put(self.kv, "half", b"1", 0)
        raise Refused(500, "no")

    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        monkeypatch.setattr(Machine, "apply", half)
        with pytest.raises(MilkrunError, match="made a mistake"):
            await engine.submit(commands.KvPut("a", b"1"), ALL)
        assert engine.machine.kv.get("half") is None
        assert [body for kind, body in storage.rows() if kind == kv.KIND] == []


async def test_one_refusal_beside_a_write_takes_nothing_from_it(tmp_path):
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        await engine.announce()
        nobody = Authority([])
        done, refused = await asyncio.gather(
            engine.submit(commands.KvPut("a", b"1"), ALL),
            engine.submit(commands.KvPut("b", b"1"), nobody),
            return_exceptions=True,
        )
        assert done is True
        assert isinstance(refused, Refused)
        assert engine.machine.kv.get("a") is not None


class Unreadable(commands.Command, frozen=True):
    """A command that no part of the machine knows: a mistake of ours."""


async def test_a_mistake_of_ours_leaves_nothing_half_done_and_nobody_waiting(tmp_path):
    mistakes = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context["exception"]))
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        answers = await asyncio.gather(
            engine.submit(commands.KvPut("a", b"1"), ALL),
            engine.submit(Unreadable(), ALL),
            return_exceptions=True,
        )
        assert all("nothing was written" in str(answer) for answer in answers)
        assert [type(mistake) for mistake in mistakes] == [TypeError]
        assert engine.machine.kv.under("") == []
        assert await engine.submit(commands.KvPut("a", b"2"), ALL) is True
