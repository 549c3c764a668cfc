"""Copies of GETs, for a version whose answers nobody sees. Pure.

HAProxy mirrors nothing by itself, and `spoa-mirror` is one more program. Its Lua has a client: a task of its own sends
the copy to a socket of HAProxy's, while the request goes its way and waits for nothing.

- A copy is never worth a user's request: one that comes while COPIES_AT_MOST are under way (per thread) is not made,
  and one that takes over COPY_WAIT_S is given up. Only GETs, and nothing that becomes another protocol.
- The copy's answer ends at the socket, with its body unread: no memory is held for it.
- A copy is made once. HAProxy's client sends again what times out, so it waits longer than the lane does.
- Copies have a backend of their own, with the version's instances: they are not among the requests of the version or of
  an instance, by which a rollout judges. When the version has nobody, a copy ends there. Nobody is probed for it.
- The instance is told that it is a copy (`x-milkrun-mirror: 1`), so that it can leave out what must be done once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from milkrun.model import InstanceId, ServiceName, VersionName
from milkrun.router.desired import Mode, RoutingState, Server
from milkrun.router.haproxy import encode
from milkrun.settings.service import TrafficSettings

FILE = "mirror.lua"
COPIES_AT_MOST = 100
COPY_WAIT_S = 5
MARK = "x-milkrun-mirror"

PROGRAM = f"""\
-- Written by milkrun's router.
local under_way = 0

local function copied(txn, socket)
  if under_way >= {COPIES_AT_MOST} then return end
  under_way = under_way + 1
  local url = "http://mirror" .. txn.sf:pathq()
  local headers = txn.http:req_get_headers()
  headers["content-length"], headers["transfer-encoding"], headers["connection"] = nil, nil, nil
  headers["{MARK}"] = {{[0] = "1"}}
  core.register_task(function()
    local client = core.httpclient()
    pcall(client.get, client, {{url = url, headers = headers, dst = "unix@" .. socket, timeout = {2 * COPY_WAIT_S}000}})
    under_way = under_way - 1
  end)
end

core.register_action("milkrun_copy", {{"http-req"}}, copied, 1)
"""


def needed(traffics: Iterable[TrafficSettings]) -> bool:
    """Whether a service has copies made."""
    return any(traffic.mirror for traffic in traffics)


def head() -> Iterator[str]:
    """What stands in the global section."""
    yield f"  lua-load-per-thread {FILE}"


def socket(service: ServiceName) -> str:
    """The socket that copies are sent to."""
    return f"{service}.mirror.sock"


def rules(service: ServiceName, traffic: TrafficSettings, fits: str = "") -> Iterator[str]:
    """A request that `fits` is copied, when its turn comes."""
    if traffic.mirror:
        turn = f"{{ rand(10000) lt {encode.slots(traffic.mirror_percent)} }}"
        some = f"{{ method GET }} !{{ req.hdr(upgrade) -m found }} !{{ req.hdr({MARK}) -m found }} {turn}"
        yield f"  http-request lua.milkrun_copy {socket(service)} if {some} {fits}".rstrip()


def backend_name(service: ServiceName) -> str:
    """The backend with the instances that get copies."""
    return f"{service}.copies"


def frontend(service: ServiceName) -> Iterator[str]:
    """Where copies come in."""
    yield f"""
frontend {service}.mirror
  mode http
  description copies of requests, whose answers nobody sees
  bind unix@{socket(service)} mode 600
  http-response return status 204
  default_backend {backend_name(service)}"""


def backend(service: ServiceName, rewritten: Iterable[str]) -> Iterator[str]:
    """Where they go, `rewritten` as the lanes do it; the servers follow. One is waited for no longer than its sender
    waits: HAProxy does not tell the instance that the sender has gone.
    """
    yield from (
        "",
        f"backend {backend_name(service)}",
        "  mode http",
        "  balance roundrobin",
        "  retries 0",
        f"  timeout server {COPY_WAIT_S}s",
        *rewritten,
    )


def servers(state: RoutingState, traffic: TrafficSettings) -> dict[InstanceId, Server]:
    """Those who get copies: the version's that take requests, while the service does."""
    there = state.versions.get(VersionName(traffic.mirror), {}) if state.shares and traffic.mirror else {}
    return {name: server for name, server in there.items() if server.mode is Mode.SERVE}


def server_options(traffic: TrafficSettings) -> str:
    """What stands on the line of each."""
    return "proto h2" if traffic.protocol == "http2" else ""
