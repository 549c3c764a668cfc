"""HAProxy's replies as values. Pure. A reply of another shape, or a torn one, is an error, never an empty answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Iterator
from functools import lru_cache

from milkrun.errors import DataPlaneError
from milkrun.model import InstanceId, VersionName
from milkrun.router.desired import Mode, Server
from milkrun.router.diff import Seen
from milkrun.router.placement import Placement, Span, tidy

# Maintenance: forced, inherited, from DNS. Not 0x04, which only says that the file once had `disabled`: such a
# server serves after `state ready`, and must not be called drained.
_OUT = 0x01 | 0x02 | 0x20
_FORMAT = "1"  # of `show servers state`
_READ = ("be_name", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_uweight", "srv_port")
_REMEMBERED = 131_072
_DRAIN = 0x08 | 0x10  # drain: forced, inherited


_COUNTED = ("pxname", "svname", "qcur", "scur")


def servers_state(reply: str) -> dict[str, dict[InstanceId, Seen]]:
    """`show servers state`, once or for several backends, as servers by backend; one without an address (`spill`)
    is left out.
    """
    lines = _whole(reply, "show servers state")
    heads = [line for line in lines if line.startswith("# be_id")]
    if not heads:
        raise _odd(reply, "show servers state")
    rows = _state_line(heads[0]).findall(reply)
    found: dict[str, dict[InstanceId, Seen]] = {}
    if len(rows) != sum(line != heads[0] and line != _FORMAT for line in lines):
        raise _odd(reply, "show servers state")
    for row in rows:
        if row[2] != "-":
            seen = _server(row)
            found.setdefault(row[0], {})[seen.server.id] = seen
    return found


@lru_cache
def _state_line(head: str) -> re.Pattern[str]:
    """The lines under this head, with what is read of them as groups. By one expression, because there may be
    twenty thousand lines at each look.
    """
    columns = head.removeprefix("# ").split()
    if [name for name in columns if name in _READ] != list(_READ):
        raise _odd(head, "show servers state")
    words = (r"(\S+)" if name in _READ else r"\S+" for name in columns)
    return re.compile(rf"^{' '.join(words)} *$", re.MULTILINE)


@lru_cache(_REMEMBERED)
def _server(row: tuple[str, ...]) -> Seen:
    _, name, address, operation, administration, weight, port = row
    try:
        admin = int(administration)
        server = Server(
            id=InstanceId(name),
            address=str(ipaddress.ip_address(address)),  # HAProxy writes some IPv6 addresses another way
            port=int(port),
            weight=int(weight),
            mode=Mode.DRAIN if admin & (_OUT | _DRAIN) else Mode.SERVE,
        )
        return Seen(server=server, up=int(operation) != 0 or bool(admin & _OUT))
    except ValueError as error:
        raise _odd(" ".join(row), "show servers state") from error


def stat(reply: str) -> dict[tuple[str, str], int]:
    """`show stat ... 4 -1`, once or for several backends, as requests in flight by backend and server."""
    lines = _whole(reply, "show stat")
    heads = [line for line in lines if line.startswith("# pxname,")]
    if not heads:
        raise _odd(reply, "show stat")
    rows = _stat_line(heads[0]).findall(reply)
    if len(rows) != sum(line != heads[0] for line in lines):
        raise _odd(reply, "show stat")
    return {
        (backend, name): int(queued or 0) + int(served or 0) if queued != "0" or served != "0" else 0
        for backend, name, queued, served in rows
    }


@lru_cache
def _stat_line(head: str) -> re.Pattern[str]:
    """The lines under this head up to the last column that is read. What may be quoted comes after that."""
    columns = head.removeprefix("# ").split(",")
    if [name for name in columns if name in _COUNTED] != list(_COUNTED):
        raise _odd(head, "show stat")
    first = columns[: columns.index(_COUNTED[-1]) + 1]
    words = (
        r'([^,"\n]*)' if name in _COUNTED[:2] else r"(\d*)" if name in _COUNTED else r"\d*" for name in first
    )
    return re.compile(rf"^(?!# ){','.join(words)},", re.MULTILINE | re.ASCII)


def shares_map(reply: str) -> Placement:
    """`show map` as slots by lane; an entry that is not a range of slots is slot 0 of a lane of that text."""
    found = []
    for entry in _entries(reply):
        match = re.fullmatch(r"(\d{1,5}):(\d{1,5}) (\S+)", entry)
        first, last, lane = match.groups() if match else ("0", "0", entry)
        found.append(Span(int(first), int(last), VersionName(lane)))
    return tidy(found)


def _entries(reply: str) -> Iterator[str]:
    """The entries of `show map`, without their addresses in memory."""
    if not reply.endswith("\n"):
        raise _odd(reply, "show map")
    for line in reply.splitlines():
        if not line:
            continue
        entry = re.fullmatch(r"0x[0-9a-f]+ (.+?)\s*", line)
        if not entry:
            raise _odd(line, "show map")
        yield entry[1]


def pairs(reply: str) -> dict[str, str]:
    """`show map` as values by key."""
    found = (entry.partition(" ") for entry in _entries(reply))
    return {key: value for key, _, value in found}


def workers(reply: str) -> list[int]:
    """`show proc` on the master: the pids of all workers, former ones too."""
    rows = [line.split() for line in _processes(reply) if line[0] != "#"]
    return [int(row[0]) for row in rows if row[1:2] == ["worker"]]


def master_reloads(reply: str) -> tuple[int, int]:
    """`show proc` on 2.6's master: how often it was reloaded, and how often in vain since the last success."""
    found = re.search(r"^\d+ +master +(\d+) \[failed: (\d+)\]", reply, re.MULTILINE)
    if not found:
        raise _odd(reply, "show proc")
    return int(found[1]), int(found[2])


def newest_worker(reply: str) -> int:
    """`show proc` on the master: the pid of the worker that takes new requests."""
    found = workers(reply)
    if not found:
        raise _odd(reply, "show proc")
    return found[0]


def answering(reply: str) -> int:
    """`show info`: the pid of the worker that answered."""
    found = re.search(r"^Pid: (\d+)$", reply, re.MULTILINE)
    if not found:
        raise _odd(reply, "show info")
    return int(found[1])


def stopping(reply: str) -> bool:
    """`show info`: whether the worker that answered takes no new connection and ends when it has none."""
    found = re.search(r"^Stopping: ([01])$", reply, re.MULTILINE)
    if not found:
        raise _odd(reply, "show info")
    return found[1] == "1"


def former_workers(reply: str, ended: Container[int] = ()) -> int:
    """`show proc` on the master: how many workers from before the last reload still run, without those `ended`."""
    lines = _processes(reply)
    old = lines.index("# old workers") if "# old workers" in lines else len(lines)
    rows = [line.split() for line in lines[old:] if line[0] != "#"]
    return sum(row[1:2] == ["worker"] and int(row[0]) not in ended for row in rows)


def _processes(reply: str) -> list[str]:
    lines = _whole(reply, "show proc")
    if "# workers" not in lines or not all(line.split()[0].isdecimal() for line in lines if line[0] != "#"):
        raise _odd(reply, "show proc")
    return lines


def _whole(reply: str, command: str) -> list[str]:
    """The reply's lines. HAProxy ends each reply with an empty line; without it the reply is torn."""
    if not reply.endswith("\n\n"):
        raise _odd(reply, command)
    return [line for line in reply.splitlines() if line.strip()]


def _odd(reply: str, command: str) -> DataPlaneError:
    return DataPlaneError(
        f"HAProxy answered {reply[-200:]!r} to `{command}`, which is not, or not all of, an answer"
    )
