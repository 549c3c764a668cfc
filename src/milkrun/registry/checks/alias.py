"""How an alias check stands: as the checks of another service or node do. Pure.

A service of this node counts by its own checks; with a node named, that node's checks count as well (as with
Consul). The worst one decides.
"""

from __future__ import annotations

from milkrun.registry.catalog import Catalog
from milkrun.registry.checks.definition import Alias
from milkrun.registry.checks.verdict import Result
from milkrun.registry.nouns import CRITICAL, PASSING, WARNING, Check


def stands(catalog: Catalog, own_node: str, check_id: str, alias: Alias) -> Result:
    """What the alias check `check_id` of `own_node` is now."""
    node = alias.node or own_node
    if node not in catalog.nodes:
        return Result(CRITICAL, f"Node {node} could not be found")
    if alias.service and alias.service not in catalog.services.get(node, {}):
        return Result(CRITICAL, f"Service {alias.service} could not be found on node {alias.node}")
    found = _checks(catalog, node, alias)
    # An alias of its own service would keep itself as it is for ever.
    found = [check for check in found if (check.node, check.check_id) != (own_node, check_id)]
    for status in (CRITICAL, WARNING):
        for check in found:
            if check.status == status:
                return Result(status, f'Aliased check "{check.name}" failing: ', _said(check))
    return Result(PASSING, "All checks passing." if found else "No checks found.")


def _checks(catalog: Catalog, node: str, alias: Alias) -> list[Check]:
    if alias.node:
        return catalog.checks_of(node, alias.service)
    return [check for _, check in sorted(catalog.service_checks.get((node, alias.service), {}).items())]


def _said(check: Check) -> str:
    """Aliases of one another would quote one another longer and longer."""
    return "" if check.type == "alias" else check.output
