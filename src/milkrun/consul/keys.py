"""Where each fact lives in the registry's KV store.

    <service>/version=<version>/weight      from deploy/<service>.json, written by gitsync
    <service>/version=<version>/replicas
    <service>/maintenance
    <service>/commit                        CommitMark: the commit that the keys above came from
    milkrun/environment                     milkrun.toml, as JSON, with its commit
    milkrun/services/<service>              services/<service>.toml, as JSON, with its commit
    milkrun/slots/<service>/<version>/<n>   held under an agent's session: who runs this replica
    milkrun/reports/routers/<service>/<id>  RouterReport, under the router's session
    milkrun/reports/agents/<host>           AgentReport, under the agent's session
    milkrun/reports/gitsync                 SyncReport, under gitsync's session
    milkrun/reports/rollouts/<host>         EngineReport, under a rollout engine's session
    milkrun/engine/lock                     held under the session of the engine that acts
    milkrun/engine/epoch                    how many engines have acted
    milkrun/rollouts/<service>/state        the service's rollout, its newest; the engine
    milkrun/rollouts/<service>/journal      what it did and saw, line by line; the engine
    milkrun/rollouts/<service>/history      the receipts of the last rollouts; the engine
    milkrun/rollouts/<service>/intents/<id> what somebody wants of it; commands write, the engine takes away

Everything under `milkrun/reports/` vanishes with the session of the one that wrote it.
"""

from __future__ import annotations

from milkrun.model import RouterId, ServiceName, VersionName

ENVIRONMENT = "milkrun/environment"
SERVICES = "milkrun/services/"
SLOTS = "milkrun/slots/"
REPORTS = "milkrun/reports/"
ROUTER_REPORTS = "milkrun/reports/routers/"
AGENT_REPORTS = "milkrun/reports/agents/"
SYNC_REPORT = "milkrun/reports/gitsync"
ENGINE_REPORTS = "milkrun/reports/rollouts/"
ENGINE_LOCK = "milkrun/engine/lock"
ENGINE_EPOCH = "milkrun/engine/epoch"
ROLLOUTS = "milkrun/rollouts/"


def wish_prefix(service: ServiceName) -> str:
    """The prefix of all keys that git's deploy file of the service became."""
    return f"{service}/"


def weight(service: ServiceName, version: VersionName) -> str:
    """The key of a version's weight."""
    return f"{service}/version={version}/weight"


def replicas(service: ServiceName, version: VersionName) -> str:
    """The key of how many instances of a version git asks for."""
    return f"{service}/version={version}/replicas"


def maintenance(service: ServiceName) -> str:
    """The key that says a service with no share at all is meant so."""
    return f"{service}/maintenance"


def commit(service: ServiceName) -> str:
    """The key that says which commit the service's keys came from."""
    return f"{service}/commit"


def service_settings(service: ServiceName) -> str:
    """The key of the service's published settings."""
    return f"{SERVICES}{service}"


def slot(service: ServiceName, version: VersionName, number: int) -> str:
    """The key whose holder runs this replica."""
    return f"{SLOTS}{service}/{version}/{number}"


def router_report(service: ServiceName, router: RouterId) -> str:
    """The key of a router's report."""
    return f"{ROUTER_REPORTS}{service}/{router}"


def agent_report(host: str) -> str:
    """The key of an agent's report."""
    return f"{AGENT_REPORTS}{host}"


def engine_report(host: str) -> str:
    """The key of a rollout engine's report."""
    return f"{ENGINE_REPORTS}{host}"


def rollout_state(service: ServiceName) -> str:
    """The key of the service's newest rollout."""
    return f"{ROLLOUTS}{service}/state"


def rollout_journal(service: ServiceName) -> str:
    """The key of what that rollout did and saw."""
    return f"{ROLLOUTS}{service}/journal"


def rollout_history(service: ServiceName) -> str:
    """The key of the receipts of the service's last rollouts."""
    return f"{ROLLOUTS}{service}/history"


def rollout_intents(service: ServiceName) -> str:
    """The prefix of what is wanted of the service's rollout and was not taken up yet."""
    return f"{ROLLOUTS}{service}/intents/"
