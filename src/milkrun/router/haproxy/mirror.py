"""Copies of GETs, for a version whose answers nobody sees. Pure.

HAProxy mirrors nothing by itself, and `spoa-mirror` is one more program. Its Lua has a client: a task of its own sends
the copy to a socket of HAProxy's, while the request goes its way and waits for nothing.

- A copy is never worth a user's request: one that comes while COPIES_AT_MOST are under way (per thread) is not made,
  and one that takes over COPY_WAIT_S is given up. Only GETs, and nothing that becomes another protocol.
- The copy's answer ends at the socket, with its body unread: no memory is held for it.
- A copy is made once. HAProxy's client sends again what times out, so it waits longer than the lane does.
- A copy reaches the version that is named and no other one: when that has nobody, it ends here, and not in the pool.
- The instance is told that it is a copy (`x-milkrun-mirror: 1`), so that it can leave out what must be done once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from milkrun.model import ServiceName
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


def limited(traffic: TrafficSettings) -> Iterator[str]:
    """In its lane, a copy is waited for no longer than its sender waits: HAProxy does not tell the instance that the
    sender has gone.
    """
    if traffic.mirror:
        yield f"  http-request set-timeout server {COPY_WAIT_S}s if {{ req.hdr({MARK}) -m found }}"


def not_spilled(traffic: TrafficSettings) -> Iterator[str]:
    """A copy whose version has nobody left goes no further."""
    if traffic.mirror:
        yield f"  http-request return status 204 if {{ req.hdr({MARK}) -m found }}"


def frontend(service: ServiceName, traffic: TrafficSettings, versions: str) -> Iterator[str]:
    """Where copies come in; `versions` is the map of the versions that serve."""
    if traffic.mirror:
        yield f"""
frontend {service}.mirror
  mode http
  description copies of requests, whose answers nobody sees
  bind unix@{socket(service)} mode 600
  http-request set-var(txn.copy) str({encode.version(traffic.mirror)}),map_str({versions})
  http-request return status 204 if !{{ var(txn.copy) -m found }}
  http-response return status 204
  use_backend %[var(txn.copy)]"""
