"""A disk as a power cut finds it: what was synced is there, of the rest each sector is there or not.

Replays the system calls that strace wrote down. Strict about names: a file that was made or taken away is so
after a cut only if its folder was synced. A sync that failed leaves what it was asked for in the system's cache, clean:
some of it is on the disk, and no later sync writes the rest (as Linux does).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

SECTOR = 512


class Op(NamedTuple):
    """One change of the disk, or a line that the writer said: `what` is a call's name or `said`."""

    what: str
    path: str = ""
    at: int = 0
    data: bytes = b""
    ok: bool = True


# From strace's lines

_TEXT = r'"((?:\\x[0-9a-f]{2})*)"'
_FD = r"(\d+)<((?:\\x[0-9a-f]{2})*)>"
_SHARED = re.compile(r"PROT_WRITE, MAP_SHARED")
_LINE = re.compile(r"^\d+\s+(\w+)\((.*)\)\s+= (-?\d+)")
_SHAPES = {
    "mkdir": re.compile(rf"^{_TEXT}"),
    "unlink": re.compile(rf"^{_TEXT}"),
    "openat": re.compile(rf"^[^,]+, {_TEXT}, (\S+)"),
    "pwrite64": re.compile(rf"^{_FD}, {_TEXT}, \d+, (\d+)$"),
    "write": re.compile(rf"^{_FD}, {_TEXT}, \d+$"),
    "ftruncate": re.compile(rf"^{_FD}, (\d+)$"),
    "fsync": re.compile(rf"^{_FD}$"),
    "fdatasync": re.compile(rf"^{_FD}$"),
}


def ops(trace: list[str], home: Path) -> Iterator[Op]:
    """What the calls did to files under `home`, and what was said on standard output, in order."""
    for line in trace:
        found = _LINE.match(line)
        if not found or found[1] == "chmod" or (found[1] == "mmap" and not _SHARED.search(found[2])):
            continue
        name, result = found[1], int(found[3])
        shape = _SHAPES.get(name)
        parts = shape.match(found[2]) if shape else None
        assert parts, f"no such call is foreseen: {line[:200]}"
        if name == "write" and parts[1] == "1":
            yield Op("said", data=_bytes(parts[3])[:result])
        op = _op(name, parts, result)
        if op and op.path.startswith(f"{home}/"):
            yield op
        elif op and op.path == str(home):
            yield op._replace(path=str(home))


def _op(name: str, parts: re.Match[str], result: int) -> Op | None:
    """The change, None when there is none."""
    if name in ("fsync", "fdatasync"):
        return Op("sync", _path(parts[2]), ok=result == 0)
    if result < 0:
        return None
    match name:
        case "mkdir" | "unlink":
            return Op(name, _path(parts[1]))
        case "openat":
            flags = parts[2].rstrip(",").split("|")
            assert "O_TRUNC" not in flags
            return Op("make", _path(parts[1])) if "O_CREAT" in flags else None
        case "pwrite64":
            return Op("write", _path(parts[2]), int(parts[4]), _bytes(parts[3])[:result])
        case "ftruncate":
            return Op("truncate", _path(parts[2]), int(parts[3]))
        case _:
            return None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> str:
    return _bytes(text).decode().removesuffix(" (deleted)")


# The disk


class _File:
    """A file's synced bytes, and what was done to it since: writes of at most a sector, and truncations."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.waiting: list[Op] = []

    def write(self, at: int, data: bytes) -> None:
        while data:
            room = SECTOR - at % SECTOR
            self.waiting.append(Op("write", at=at, data=data[:room]))
            at, data = at + len(data[:room]), data[room:]

    def sync(self) -> None:
        self.synced = self.after(self.waiting)
        self.waiting = []

    def after(self, done: list[Op]) -> bytearray:
        found = bytearray(self.synced)
        for op in done:
            if op.what == "truncate":
                del found[op.at :]
                found.extend(bytes(op.at - len(found)))
            else:
                found.extend(bytes(max(0, op.at - len(found))))
                found[op.at : op.at + len(op.data)] = op.data
        return found

    def some(self, rng: Random) -> list[Op]:
        """Of each sector's writes the first few, of the truncations any."""
        likely = rng.choice((0.1, 0.5, 0.9))
        written: dict[int, bool] = {}
        found = []
        for op in self.waiting:
            if op.what == "truncate":
                if rng.random() < likely:
                    found.append(op)
                continue
            sector = op.at // SECTOR
            if written.get(sector, True):
                written[sector] = rng.random() < likely
                if written[sector]:
                    found.append(op)
        return found


class Disk:
    """Folders and files as the process sees them, and as they may be after a power cut."""

    def __init__(self, home: Path, rng: Random) -> None:
        self._home = str(home)
        self._rng = rng
        self._now: dict[str, _File | None] = {}
        """Each path that the process sees; None: a folder."""
        self._synced: dict[str, _File | None] = {}
        """The same after a power cut."""
        self._renamed: list[tuple[str, _File | None, bool]] = []
        """The names that came (True) or went since their folder was synced."""

    def apply(self, op: Op) -> None:
        match op.what:
            case "mkdir":
                self._name(op.path, None, there=True)
            case "make":
                if op.path not in self._now:
                    self._name(op.path, _File(), there=True)
            case "unlink":
                self._name(op.path, self._now[op.path], there=False)
            case "write":
                self._file(op).write(op.at, op.data)
            case "truncate":
                self._file(op).waiting.append(op)
            case "sync":
                self._sync(op)
            case _:
                raise ValueError(op)

    def _name(self, path: str, file: _File | None, *, there: bool) -> None:
        if there:
            self._now[path] = file
        else:
            del self._now[path]
        self._renamed.append((path, file, there))

    def _file(self, op: Op) -> _File:
        file = self._now[op.path]
        assert file is not None
        return file

    def _sync(self, op: Op) -> None:
        file = self._now.get(op.path)
        if file is None:
            if op.ok:
                mine = [name for name in self._renamed if str(Path(name[0]).parent) == op.path]
                self._renamed = [name for name in self._renamed if name not in mine]
                _rename(self._synced, mine)
        elif op.ok:
            file.sync()
        else:
            file.synced, file.waiting = file.after(file.some(self._rng)), []

    def cut(self, into: Path, *, how: str) -> None:
        """`into` is what a cut leaves: of what was not synced `all`, `none` or `some`."""
        names = dict(self._synced)
        known = {"all": len(self._renamed), "none": 0}.get(how)
        _rename(names, self._renamed[: self._rng.randint(0, len(self._renamed)) if known is None else known])
        for path, file in sorted(names.items()):
            target = into / Path(path).relative_to(self._home)
            if not target.parent.is_dir():
                continue
            if file is None:
                target.mkdir()
            else:
                waiting = {"all": file.waiting, "none": []}.get(how)
                target.write_bytes(file.after(file.some(self._rng) if waiting is None else waiting))


def _rename(names: dict[str, _File | None], changes: list[tuple[str, _File | None, bool]]) -> None:
    for path, file, there in changes:
        if there:
            names[path] = file
        else:
            names.pop(path, None)
