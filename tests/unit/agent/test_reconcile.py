"""What the agent decides with, before it decides."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from milkrun.agent.facts import Facts
from milkrun.agent.plan import Claim, Slot, plan
from milkrun.agent.probes import Prober
from milkrun.agent.reconcile import Reconciler
from milkrun.agent.records import Records
from milkrun.agent.unit import Site
from milkrun.consul import Address, Registry, Session
from milkrun.model import CommitMark, VersionWish, Wish
from milkrun.settings.environment import AgentSettings
from milkrun.settings.service import ServiceSettings


def reconciler(tmp_path: Path, session: Session, *, named: bool = True) -> Reconciler:
    registry = Registry(Address())
    facts = Facts(registry)
    facts.agent = AgentSettings()
    facts.services = {"goat": ServiceSettings(command=["x"])}
    mark = CommitMark(commit="c0ffee", generation=1)
    facts.wishes = {"goat": Wish(versions={"1": VersionWish(replicas=1)}, mark=mark)}
    facts.slots = {}
    site = Site(
        host="meadow", state_dir=tmp_path, processes=None, containers=None, registry=registry, session=session,
        named=lambda: named, prober=Prober(), records=Records(tmp_path), settings=facts.services.get,
        router_news=asyncio.Event, changed=lambda: None,
    )  # fmt: skip
    return Reconciler(site, facts, {}, lambda _: None)


async def test_nothing_is_claimed_under_a_session_that_may_be_dead(tmp_path):
    session = Session(
        Registry(Address()), "agent", behavior="delete", resume="9f38f730-f976-4a35-aadb-7a4a7c824bff"
    )
    reconciling = reconciler(tmp_path, session)
    assert plan(reconciling._view()) == []
    session._renewed = time.monotonic()
    assert plan(reconciling._view()) == [Claim(Slot("goat", "1", 0))]
    assert plan(reconciler(tmp_path, session, named=False)._view()) == []
