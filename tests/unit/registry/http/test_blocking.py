from __future__ import annotations

import asyncio

import pytest

from milkrun.registry import commands, topics
from milkrun.registry.access.authority import ALL, Gate, Mode
from milkrun.registry.access.tokens import Token, digest_of
from milkrun.registry.engine import Engine
from milkrun.registry.http import blocking
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.nouns import Node
from milkrun.registry.parked import Parked
from milkrun.registry.refusal import Refused
from milkrun.registry.storage import Storage

OWN = Node(id="1" * 36, node="n1", address="127.0.0.1")
TOPIC = topics.key("a")


@pytest.fixture
async def engine(tmp_path):
    with Storage(tmp_path) as storage:
        found = Engine(storage, OWN, gate=Gate(Mode.DEFAULT, digest_of(b"secret")))
        await found.submit(commands.KvPut("a", b"1"), ALL)
        other = Token(accessor="2" * 36, digest=digest_of(b"other"))
        await found.submit(commands.PutToken(other), ALL)
        yield found


class Watchers:
    """Blocking queries on one key, and how often a reply was made for them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.made = 0

    async def ask(self, request: Request) -> Reply:
        async with asyncio.timeout(10):
            return await blocking.answer(
                self.engine,
                request,
                TOPIC,
                index=lambda: self.engine.machine.kv.index_of("a"),
                reply=self._reply,
            )

    def _reply(self, index: int) -> Reply:
        self.made += 1
        return Reply.json([self.engine.machine.kv.get("a")], index=index)


def watching(target: bytes = b"", token: bytes = b"") -> Request:
    return Request("GET", target or b"/v1/kv/a?index=99&wait=60s", [], secret=token)


async def parked(engine: Engine, count: int) -> None:
    async with asyncio.timeout(5):
        while len(engine.parked) < count:
            await asyncio.sleep(0)


async def test_those_who_asked_the_same_share_one_reply_and_others_do_not(engine):
    watchers = Watchers(engine)
    asked = [watching() for _ in range(50)]
    asked += [watching(b"/v1/kv/a?index=99&wait=61s"), watching(token=b"secret"), watching(token=b"other")]
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(watchers.ask(each)) for each in asked]
        await parked(engine, len(asked))
        index = engine.machine.ledger.index + 1
        await engine.submit(commands.KvPut("a", b"2"), ALL)
    replies = [each.result() for each in waiting]
    assert watchers.made == 4
    assert len({id(each) for each in replies[:50]}) == 1
    assert len({id(each) for each in replies}) == 4
    assert {each.index for each in replies} == {index}
    assert len(engine.parked) == 0


async def test_what_was_made_for_one_change_is_not_the_answer_to_the_next(engine):
    watchers = Watchers(engine)
    for value in (b"2", b"3"):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(watchers.ask(watching()))
            await parked(engine, 1)
            await engine.submit(commands.KvPut("a", value), ALL)
        assert waiting.result() == Reply.json(
            [engine.machine.kv.get("a")], index=engine.machine.kv.index_of("a")
        )


async def test_a_client_that_says_no_more_is_answered_as_things_stand(engine):
    watchers = Watchers(engine)
    request, gone = watching(), watching()
    gone.leave()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(watchers.ask(request))
        await parked(engine, 1)
        early = await watchers.ask(gone)
        request.leave()
        late = await waiting
    assert early.index == late.index == engine.machine.kv.index_of("a")
    assert len(engine.parked) == 0


async def test_so_many_wait_and_no_more(engine):
    engine.parked = Parked(in_all=2)
    watchers = Watchers(engine)
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(watchers.ask(watching())) for _ in range(2)]
        await parked(engine, 2)
        with pytest.raises(Refused, match="Too many blocking queries") as refused:
            await watchers.ask(watching())
        assert refused.value.status == 429
        assert (await watchers.ask(Request("GET", b"/v1/kv/a", []))).status == 200
        await engine.submit(commands.KvPut("a", b"2"), ALL)
        for each in waiting:
            assert (await each).status == 200
