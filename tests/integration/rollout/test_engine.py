"""The engine's own care: who may write, and what is true when the watch is a moment behind."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from milkrun.consul import Registry, keys
from milkrun.errors import Conflict
from milkrun.model import ServiceName, VersionName
from milkrun.rollout import receipt
from milkrun.rollout.daemon import Engine
from milkrun.rollout.machine import Decision
from milkrun.rollout.migrating import Migration
from milkrun.rollout.opening import begun
from milkrun.rollout.pilot import Pilot, Scene, Site
from milkrun.rollout.plan import plan
from milkrun.rollout.push import Pusher
from milkrun.rollout.state import Intent, Phase
from milkrun.rollout.store import Shelf, Store, next_epoch
from milkrun.settings.migration import MigrationSettings
from milkrun.settings.rollout import RolloutSettings
from milkrun.testing.registry import embedded_registry

GOAT = ServiceName("goat")
START = Intent(id="1", verb="start", by="test", at=1.0)
RUNNING = begun(
    plan(
        "r1",
        GOAT,
        VersionName("0.0.2"),
        b'{"version=0.0.1": {"weight": 1, "replicas": 1}}',
        RolloutSettings(),
    ),
    START,
    1,
    1.0,
)
DONE = msgspec.structs.replace(RUNNING, phase=Phase.DONE)


@pytest.fixture
async def registry(tmp_path):
    async with embedded_registry(tmp_path) as address, Registry(address) as registry:
        yield registry


async def locked(registry: Registry) -> str:
    session = await registry.create_session("engine", ttl_s=15, behavior="delete", lock_delay_s=0)
    assert await registry.put(keys.ENGINE_LOCK, b"here", acquire=session)
    return session


def site_of(registry: Registry, session: str, scene: Scene) -> Site:
    return Site(
        registry=registry,
        store=Store(registry, session),
        git=None,
        calls=None,
        rides=None,
        epoch=1,
        scene=lambda: scene,
        news=asyncio.Event,
        told=lambda urls, about: None,
        pushed=lambda: None,
    )


async def test_only_who_holds_the_lock_writes(registry):
    session = await locked(registry)
    store = Store(registry, session)
    await store.save(GOAT, state=RUNNING, journal=[])
    await registry.destroy_session(session)
    await locked(registry)
    with pytest.raises(Conflict, match="taken over"):
        await store.save(GOAT, state=DONE, journal=[])
    found = (await store.read(GOAT)).state
    assert found is not None
    assert found.phase is Phase.RUNNING


async def test_each_engine_that_acts_has_a_greater_epoch(registry):
    epochs = []
    for _ in range(3):
        session = await locked(registry)
        epochs.append(await next_epoch(registry, session))
        await registry.destroy_session(session)
        with pytest.raises(Conflict):
            await next_epoch(registry, session)
    assert epochs == sorted(set(epochs))


async def test_a_rollout_that_has_ended_is_not_flown_again_by_a_watch_that_is_behind(registry, tmp_path):
    session = await locked(registry)
    await Store(registry, session).save(GOAT, state=DONE, journal=[])
    engine = Engine(
        registry, None, calls=None, rides=None, pusher=Pusher(None, ""), state_dir=tmp_path, host="here"
    )
    engine._shelves = {GOAT: Shelf(state=RUNNING)}
    engine._seen.set()
    site = site_of(registry, session, Scene())
    async with asyncio.TaskGroup() as flights:
        await engine._open(site, flights)
        assert engine._pilots == {}


async def test_what_was_answered_is_not_followed_again_while_the_watch_still_shows_it(registry):
    """Else one `promote` would skip two waits."""
    promote = Intent(id="p", verb="promote", by="kate", at=1.0, rollout=RUNNING.plan.id)
    shown = {GOAT: {"key": promote}}
    pilot = Pilot(site_of(registry, await locked(registry), Scene(intents=shown)), Shelf(state=RUNNING))
    assert pilot._intents() == {"key": promote}
    await pilot._follow(Decision(RUNNING, None, []), taken=["key"])
    assert pilot._intents() == {}


async def test_one_that_is_called_off_behind_another_has_its_receipt_at_once(registry):
    off = receipt.refused(GOAT, msgspec.structs.replace(START, rollout="r2"), "called off by kate", 1.0)
    site = site_of(registry, await locked(registry), Scene())
    await registry.put(f"{keys.rollout_intents(GOAT)}1", msgspec.json.encode(START))
    pilot = Pilot(site, Shelf(state=RUNNING))
    await pilot._follow(Decision(RUNNING, None, []), taken=[f"{keys.rollout_intents(GOAT)}1"], refused=[off])
    shelf = await site.store.read(GOAT)
    assert (shelf.history, shelf.intents) == ([off], {})
    assert shelf.state == RUNNING


async def test_a_contract_whose_time_has_come_is_asked_for_once(registry, tmp_path):
    engine = Engine(
        registry, None, calls=None, rides=None, pusher=Pusher(None, ""), state_dir=tmp_path, host="here"
    )
    migration = Migration(
        commit="",
        phases=["expand", "contract"],
        digest="",
        settings=MigrationSettings(url_env="U", contract="after 1m"),
    )  # fmt: skip
    plan = msgspec.structs.replace(DONE.plan, migrations={DONE.plan.version: migration})
    shelf = Shelf(state=msgspec.structs.replace(DONE, plan=plan, ended=1.0))
    await engine._contract(GOAT, shelf)
    store = Store(registry, "")
    intents = (await store.read(GOAT)).intents
    assert [(one.verb, one.strategy, one.version) for one in intents.values()] == [
        ("start", "contract", plan.version)
    ]
    await engine._contract(GOAT, msgspec.structs.replace(shelf, intents=intents))
    assert (await store.read(GOAT)).intents == intents
