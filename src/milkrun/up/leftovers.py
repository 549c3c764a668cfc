"""What of an environment runs on this machine without an `up` that watches it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from milkrun.agent.units.marked import marked
from milkrun.host.process import Identity, identity
from milkrun.settings.folder import Folder
from milkrun.up.lock import DAEMON, holder
from milkrun.up.record import load

_PROC = Path("/proc")


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process that a part started: an instance, or a router's HAProxy or Envoy."""

    identity: Identity
    what: str


def parts(folder: Folder) -> dict[str, Identity]:
    """The parts that run, by name: those that the last `up` wrote down, and those that hold a part's lock."""
    record = load(folder)
    found = {name: known.identity for name, known in record.parts.items() if known.alive()} if record else {}
    homes = {name: folder.state / name for name in ("registry", "gitsync", "agent", "rollouts")}
    routers = folder.router("x").parent
    if routers.is_dir():
        homes |= {home.name: home for home in routers.iterdir()}
    for name, home in homes.items():
        pid = holder(home / DAEMON)
        if pid and (running := identity(pid)):
            found[name] = running
    return found


def children(folder: Folder) -> list[Child]:
    """The instances, HAProxy and Envoy processes of this environment that run, whoever watches them."""
    # As the agent spells it: this command may have come here by a link.
    own = marked(str(folder.agent.resolve()))
    found = [Child(identity=one.identity, what=one.instance or "an instance") for one in own]
    return [*found, *_data_planes(folder)]


def kill(folder: Folder) -> list[Child]:
    """The children have been sent SIGKILL, each with the group it leads; returned are those there were."""
    found = children(folder)
    for child in found:
        pid = child.identity.pid
        if identity(pid) == child.identity:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGKILL)
    return found


def _data_planes(folder: Folder) -> Iterator[Child]:
    states = {str(folder.state), str(folder.state.resolve())}
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            program = (process / "exe").readlink().name
            if not program.startswith(("haproxy", "envoy")):
                continue
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            here = [str((process / "cwd").readlink()), *words]
            if any(_inside(word, state) for word in here for state in states) and (
                known := identity(int(process.name))
            ):
                yield Child(identity=known, what="envoy" if program.startswith("envoy") else "haproxy")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
