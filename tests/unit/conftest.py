"""The dairy farm as values: what the registry says of it when all is well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milkrun.model import (
    AgentReport,
    CommitId,
    CommitMark,
    Figures,
    Health,
    Instance,
    InstanceId,
    InstanceTraffic,
    RouterId,
    RouterReport,
    ServiceName,
    SyncReport,
    UnitReport,
    VersionName,
    VersionTraffic,
    VersionWish,
    Wish,
)
from milkrun.overview.facts import Facts, Slot, SlotHolder
from milkrun.settings.environment import Environment, PublishedEnvironment, RouterSettings
from milkrun.settings.service import PublishedService, ServiceSettings

COMMIT = CommitId("4c1266d0" * 5)
MARK = CommitMark(commit=COMMIT, generation=7)
GOAT = ServiceName("goat")
V1, V2 = VersionName("0.0.1"), VersionName("0.0.2")
PORTS = {8101: V1, 8102: V1, 8103: V2}


def instance_id(port: int) -> InstanceId:
    return InstanceId(f"goat-{PORTS[port]}-shed-{port}")


def instance(port: int) -> Instance:
    return Instance(
        id=instance_id(port),
        service=GOAT,
        version=PORTS[port],
        address="127.0.0.1",
        port=port,
        health=Health.PASSING,
        reason="GET /health: 200",
    )


def unit(port: int, slot: int) -> UnitReport:
    return UnitReport(
        instance=instance_id(port),
        service=GOAT,
        version=PORTS[port],
        slot=slot,
        address="127.0.0.1",
        port=port,
        state="healthy",
        pid=1000 + port,
        log=f"/farm/.milkrun/agent/logs/{instance_id(port)}.log",
    )


@pytest.fixture
def farm() -> Facts:
    """Goats in two versions at 80 and 20, one router, all in step."""
    environment = Environment(
        name="dairy-farm",
        routers={"lb-goat": RouterSettings(service="goat", listen="127.0.0.1:8202", stats="127.0.0.1:8404")},
    )
    slots = {8101: 0, 8102: 1, 8103: 0}
    return Facts(
        environment=PublishedEnvironment(mark=MARK, settings=environment),
        settings={
            GOAT: PublishedService(mark=MARK, settings=ServiceSettings(command=["{python}", "goat.py"]))
        },
        wishes={
            GOAT: Wish(
                versions={V1: VersionWish(weight=80, replicas=2), V2: VersionWish(weight=20, replicas=1)},
                mark=MARK,
            )
        },
        instances={GOAT: [instance(port) for port in PORTS]},
        balancers={"lb-goat": []},
        parts=[],
        slots=[
            Slot(
                service="goat",
                version=PORTS[port],
                number=number,
                holder=SlotHolder(host="shed", instance=instance_id(port)),
            )
            for port, number in slots.items()
        ],
        routers=[
            RouterReport(
                router=RouterId("lb-goat-shed-8202"),
                service=GOAT,
                host="shed",
                listen="127.0.0.1:8202",
                stats="http://127.0.0.1:8404/monitor",
                commit=COMMIT,
                generation=7,
                applied_at=1000.0,
                catalog_index=40,
                versions={
                    V1: VersionTraffic(
                        share=8000, total=Figures(requests=9000), window=Figures(requests=7993)
                    ),
                    V2: VersionTraffic(
                        share=2000, total=Figures(requests=2500), window=Figures(requests=2007, failures=1)
                    ),
                },
                instances={instance_id(port): InstanceTraffic(state="serving") for port in PORTS},
            )
        ],
        agents=[AgentReport(host="shed", units=[unit(port, number) for port, number in slots.items()])],
        sync=SyncReport(repository="/farm", branch="main", commit=COMMIT, generation=7, synced_at=1000.0),
    )


@pytest.fixture
def with_instance(farm: Facts) -> Callable[..., Facts]:
    """The farm with the goat at one port changed, in the catalog."""
    from msgspec.structs import replace

    def changed(port: int, **fields: object) -> Facts:
        goats = [replace(one, **fields) if one.port == port else one for one in farm.instances[GOAT]]
        return replace(farm, instances={GOAT: goats})

    return changed
