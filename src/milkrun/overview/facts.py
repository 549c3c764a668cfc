"""All that the registry says of an environment, as values. Pure."""

from __future__ import annotations

import msgspec

from milkrun.model import (
    AgentReport,
    EngineReport,
    Instance,
    RouterReport,
    ServiceName,
    SyncReport,
    Wish,
)
from milkrun.overview.rolling import Rolling
from milkrun.settings.environment import PublishedEnvironment
from milkrun.settings.service import PublishedService


class SlotHolder(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent writes into the slot that it holds."""

    host: str
    instance: str = ""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that git asks for, and who runs it."""

    service: str
    version: str
    number: int
    holder: SlotHolder


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What one reading of the registry gave. Only what is there: nothing is judged yet.

    `balancers` are the catalog's entries of the routers, by name; `parts` those of Milkrun's other parts.
    `unreadable` names the keys whose content has another shape than this version of Milkrun knows.
    """

    environment: PublishedEnvironment | None = None
    settings: dict[ServiceName, PublishedService] = {}
    wishes: dict[ServiceName, Wish] = {}
    instances: dict[ServiceName, list[Instance]] = {}
    balancers: dict[str, list[Instance]] = {}
    parts: list[Instance] = []
    slots: list[Slot] = []
    routers: list[RouterReport] = []
    agents: list[AgentReport] = []
    sync: SyncReport | None = None
    engines: list[EngineReport] = []
    rollouts: dict[ServiceName, Rolling] = {}
    unreadable: list[str] = []
