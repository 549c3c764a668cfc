"""Whether a new file would serve what should be served: read from the text that HAProxy will read. Pure.

`haproxy -c` judges the grammar. A file without a server is good grammar, so what it means is judged here, by other
code than the one that writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from milkrun.model import SHARE_SLOTS, InstanceId, ServiceName
from milkrun.router.desired import Mode, RoutingState

_SECTION = re.compile(r"^(?:frontend|backend|listen|defaults|global)\b[ ]*(\S*)", re.MULTILINE)
_SERVER = re.compile(r"^  server (\S+) (\S+)(.*)$", re.MULTILINE)


def objections(
    text: str,
    maps: Mapping[ServiceName, str],
    wanted: Mapping[ServiceName, RoutingState],
    running: Mapping[ServiceName, frozenset[InstanceId]],
) -> list[str]:
    """What is wrong with the file and its maps, in words; empty when a reload may be made.

    `running` are the instances that HAProxy has in service now, of services of which it is not known yet what the
    registry wants: their traffic may not end because something was forgotten.
    """
    found = list(_missing(text, maps, wanted))
    servers = _servers(text)
    for service, instances in running.items():
        kept = servers.get(f"{service}.all", {})
        if instances and not any(kept.values()):
            found.append(f"{service} would have no server, and {len(instances)} serve it now")
    return found


def _missing(
    text: str, maps: Mapping[ServiceName, str], wanted: Mapping[ServiceName, RoutingState]
) -> Iterator[str]:
    servers = _servers(text)
    for service, slots in maps.items():
        state = wanted.get(service, RoutingState())
        try:
            lanes = _lanes(slots)
        except ValueError:
            yield f"{service}'s map is none"
            continue
        if sorted(lanes.values()) != sorted(state.shares.values()):
            yield f"{service}'s map has the shares {sorted(lanes.values())}, not {sorted(state.shares.values())}"
        if sum(lanes.values()) not in {0, SHARE_SLOTS}:
            yield f"{service}'s map has {sum(lanes.values())} of {SHARE_SLOTS} slots"
        for lane in lanes.keys() - servers.keys():
            yield f"{service}'s map names {lane}, which is no backend"
        wished = {
            (str(server.id), server.mode is Mode.SERVE)
            for each in state.versions.values()
            for server in each.values()
        }
        written = {
            (name, serves)
            for backend, each in servers.items()
            if backend.startswith(f"{service}.") and backend not in {f"{service}.all", f"{service}.copies"}
            for name, serves in each.items()
        }
        if wished != written:
            names = sorted({name for name, _ in wished ^ written})
            yield f"{service}'s servers are not those that it should have: {', '.join(names[:5])}"


def _servers(text: str) -> dict[str, dict[str, bool]]:
    """Each section's servers, and whether they serve; HAProxy's own way to the pool is none."""
    found: dict[str, dict[str, bool]] = {}
    heads = list(_SECTION.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : after.start() if after else len(text)]
        found[head[1]] = {
            server[1]: " disabled" not in server[3]
            for server in _SERVER.finditer(body)
            if not server[2].startswith("unix@")
        }
    return found


def _lanes(slots: str) -> dict[str, int]:
    """How many slots each lane has."""
    found: dict[str, int] = {}
    for line in slots.splitlines():
        ends, _, lane = line.partition(" ")
        first, _, last = ends.partition(":")
        found[lane] = found.get(lane, 0) + int(last) - int(first) + 1
    return found
