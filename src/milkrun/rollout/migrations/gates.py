"""What has to be so before the contract takes away what only an old version used. Pure.

The database itself is asked who is in it: an instance that left the catalog may still write.
"""

from __future__ import annotations

import msgspec

from milkrun.model import ServiceName, VersionName, application_name


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen now.

    `sessions` are application_names in the database, `instances` the catalog's of each version, `wrong` is what
    verify.sql found.
    """

    sessions: list[str]
    instances: dict[VersionName, int]
    wrong: list[str] = []


def closed(service: ServiceName, new: VersionName, old: list[VersionName], facts: Facts) -> list[str]:
    """Why the contract may not come yet, each reason in a sentence; empty when it may."""
    reasons = []
    for version in old:
        if count := facts.instances.get(version, 0):
            reasons.append(f"{count} instances of {version} are in the catalog")
        if here := _of(service, version, facts.sessions):
            reasons.append(f"{len(here)} sessions of {version} are in the database: {here[0]}")
    # No data is no success: where even the new version does not say who it is, the old one would not either.
    if not _of(service, new, facts.sessions):
        reasons.append(
            f"no session in the database is called {application_name(service, new, '...')}: nobody can tell who is old"
        )
    reasons += [f"verify finds something wrong: {each}" for each in facts.wrong]
    return reasons


def _of(service: ServiceName, version: VersionName, sessions: list[str]) -> list[str]:
    return [name for name in sessions if name.startswith(application_name(service, version, ""))]
