"""A restore is a change like any other: what differs from the snapshot is written, what it lacks is taken away.

So it is one commit, whole or not at all, under one new index, and wakes exactly the watchers of what changed.
This registry's own node, which its agent keeps, stays. Pure.
"""

from __future__ import annotations

import msgspec

from milkrun.registry import sessions
from milkrun.registry.access.tokens import Tokens
from milkrun.registry.agent import Agent
from milkrun.registry.catalog import Catalog
from milkrun.registry.kv import KeyValues
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import NODE_CHECK, OWN_SERVICE
from milkrun.registry.snapshot import Contents


def restore_sessions(live: sessions.Sessions, whole: Contents, now: float) -> None:
    """The live sessions are the snapshot's; those that came later ended, with their lock-delay."""
    wanted = {each.id: each for each in whole.sessions}
    for session_id in sorted(live.live.keys() - wanted.keys()):
        live.end(session_id, now)
    for session_id in sorted(wanted.keys() - live.live.keys()):
        live.revive(wanted[session_id], now)


def restore_keys(store: KeyValues, ledger: Ledger, whole: Contents) -> None:
    """The keys are the snapshot's. One that changes carries the new index: a watcher saw a higher one before."""
    wanted = {entry.key: entry for entry in whole.entries}
    for entry in store.under(""):
        if entry.key not in wanted:
            ledger.bump()
            store.erase(entry.key)
    for key, entry in wanted.items():
        old = store.get(key)
        same = old and msgspec.structs.replace(
            entry, create_index=old.create_index, modify_index=old.modify_index
        )
        if same is None or same != old:
            store.write(msgspec.structs.replace(entry, modify_index=ledger.bump()))


def restore_catalog(catalog: Catalog, whole: Contents) -> None:
    """Nodes, services and checks are the snapshot's, but for this registry's own node itself."""
    _drop_what_it_lacks(catalog, whole)
    own = whole.node
    for node in whole.nodes:
        if node.node != own:
            catalog.put_node(node)
    for row in whole.services:
        if (row.node, row.service.id) != (own, OWN_SERVICE):
            catalog.put_service(row.node, row.service)
    for check in whole.checks:
        if (check.node, check.check_id) != (own, NODE_CHECK):
            catalog.put_check(check)


def _drop_what_it_lacks(catalog: Catalog, whole: Contents) -> None:
    own = whole.node
    services = {(row.node, row.service.id) for row in whole.services} | {(own, OWN_SERVICE)}
    checks = {(check.node, check.check_id) for check in whole.checks} | {(own, NODE_CHECK)}
    for name in sorted(catalog.nodes.keys() - {node.node for node in whole.nodes} - {own}):
        catalog.drop_node(name)
    for gone in sorted({(node, each) for node, all_ in catalog.services.items() for each in all_} - services):
        catalog.drop_service(*gone)
    for gone in sorted({(node, each) for node, all_ in catalog.checks.items() for each in all_} - checks):
        catalog.drop_check(*gone)


def restore_specs(agent: Agent, whole: Contents, now: float) -> None:
    """The agent keeps the snapshot's checks, each with its whole time before it."""
    wanted = {spec.check_id: spec for spec in whole.specs}
    for check_id in sorted(agent.specs.keys() - wanted.keys()):
        agent.forget(check_id)
    for spec in whole.specs:
        agent.keep(spec, now)


def restore_tokens(tokens: Tokens, whole: Contents) -> None:
    """Tokens, roles and policies are the snapshot's; the registry's own token is a file's and stays."""
    tokens.become(whole.tokens, whole.policies, whole.roles)
