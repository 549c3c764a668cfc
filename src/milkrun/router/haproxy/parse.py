"""HAProxy's replies as values. Pure. A reply of another shape is an error, never an empty answer."""

from __future__ import annotations

import csv
import io
import re

import msgspec

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId
from milkrun.router.desired import Mode, Server
from milkrun.router.diff import Seen
from milkrun.router.plane import Counters

_OUT = 0x01 | 0x02 | 0x04 | 0x20  # maintenance: forced, inherited, from the file, from DNS
_DRAIN = 0x08 | 0x10  # drain: forced, inherited


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One server's line of `show stat`."""

    backend: str
    name: str
    in_flight: int
    counters: Counters


def servers_state(reply: str) -> dict[str, dict[InstanceId, Seen]]:
    """`show servers state` as servers by backend, without the ones that have no address (`spill`)."""
    lines = reply.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("# be_id")), None)
    if start is None:
        raise DataPlaneError(f"HAProxy answered {reply[:200]!r} to `show servers state`")
    columns = lines[start].removeprefix("# ").split()
    found: dict[str, dict[InstanceId, Seen]] = {}
    for line in lines[start + 1 :]:
        if not line.strip():
            continue
        row = dict(zip(columns, line.split(), strict=False))
        if row["srv_addr"] == "-":
            continue
        admin = int(row["srv_admin_state"])
        server = Server(
            id=InstanceId(row["srv_name"]),
            address=row["srv_addr"],
            port=int(row["srv_port"]),
            weight=int(row["srv_uweight"]),
            mode=Mode.DRAIN if admin & (_OUT | _DRAIN) else Mode.SERVE,
        )
        seen = Seen(server=server, up=int(row["srv_op_state"]) != 0 or bool(admin & _OUT))
        found.setdefault(row["be_name"], {})[server.id] = seen
    return found


def stat(reply: str) -> list[Row]:
    """`show stat -1 4 -1` as rows."""
    if not reply.startswith("# pxname,"):
        raise DataPlaneError(f"HAProxy answered {reply[:200]!r} to `show stat`")
    rows = []
    for row in csv.DictReader(io.StringIO(reply.removeprefix("# "))):
        answers = sum(int(row[f"hrsp_{kind}"] or 0) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
        rows.append(
            Row(
                backend=row["pxname"],
                name=row["svname"],
                in_flight=int(row["scur"] or 0) + int(row["qcur"] or 0),
                counters=Counters(
                    requests=answers,
                    failures=int(row["hrsp_5xx"] or 0),
                    mean_ms=float(row["ttime"] or 0),
                ),
            )
        )
    return rows


def shares_map(reply: str) -> dict[str, int]:
    """`show map` as slots by lane; entries that are not ranges of slots count as a lane of that odd text."""
    found: dict[str, int] = {}
    for line in reply.splitlines():
        if not line.strip():
            continue
        match = re.fullmatch(r"0x[0-9a-f]+ (\d+):(\d+) (\S+)\s*", line)
        if not match:
            raise DataPlaneError(f"HAProxy's map has the odd entry {line[:100]!r}")
        first, last, lane = match.groups()
        found[lane] = found.get(lane, 0) + int(last) - int(first) + 1
    return found


def former_workers(reply: str) -> int:
    """`show proc` on the master: how many workers from before the last reload still run."""
    _, old, rest = reply.partition("# old workers")
    return (
        sum(line.split()[1] == "worker" for line in rest.splitlines() if len(line.split()) > 1) if old else 0
    )
