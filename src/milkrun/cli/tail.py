"""Follows a growing file, also when it is cut or replaced; what was cut off and stands in `<file>.1` is read there."""

from __future__ import annotations

import contextlib
from pathlib import Path

BLOCK = 1 << 16
LINE_AT_MOST = 1 << 16


class Tail:
    """The lines of one file from where it stands. A line is given once its newline is there."""

    def __init__(self, path: Path, last: int) -> None:
        self.path = path
        self._inode = 0
        self._offset = 0
        self._rest = b""
        self._first = self._last_lines(last)

    def lines(self) -> list[str]:
        """The lines that came since the last call; at first the last few that were there."""
        first, self._first = self._first, []
        return first + self._new()

    def _last_lines(self, count: int) -> list[str]:
        try:
            self._inode = _inode(self.path)
            data, self._offset = _end(self.path, count)
        except OSError:
            return []
        *whole, self._rest = data.split(b"\n")
        if len(whole) < count:
            with contextlib.suppress(OSError):
                whole = [*_end(_cut_off(self.path), count - len(whole))[0].splitlines(), *whole]
        return [_text(line) for line in whole[-count:]] if count else []

    def _new(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                inode = _inode(self.path)
                size = file.seek(0, 2)
                if size < self._offset and inode == self._inode:
                    self._rest += _after(_cut_off(self.path), self._offset)
                    self._offset = 0
                elif inode != self._inode:
                    self._inode, self._offset, self._rest = inode, 0, b""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *whole, rest = (self._rest + data).split(b"\n")
        if len(rest) > LINE_AT_MOST:
            whole.append(rest)
            rest = b""
        self._rest = rest
        return [_text(line) for line in whole]


def _cut_off(path: Path) -> Path:
    """Where the agent puts a log that grew too long (`agent/units/logfile.py`)."""
    return path.with_name(f"{path.name}.1")


def _end(path: Path, lines: int) -> tuple[bytes, int]:
    """The end of the file with at least so many lines, or all of it; and how long the file is."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        data, at = b"", end
        while at > 0 and data.count(b"\n") <= lines:
            at = max(0, at - BLOCK)
            file.seek(at)
            data = file.read(end - at)
    return data, end


def _after(path: Path, offset: int) -> bytes:
    """What the file has from there on; nothing when it is no longer than that, and so was not what was cut off."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _text(line: bytes) -> str:
    """The line as text that cannot drive the terminal: control characters stand as escapes."""
    text = line.decode(errors="replace").rstrip("\r")
    return "".join(char if char == "\t" or char.isprintable() else repr(char)[1:-1] for char in text)
