"""Follows a growing file, also when it is cut or replaced."""

from __future__ import annotations

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
            with self.path.open("rb") as file:
                self._inode = _inode(self.path)
                end = file.seek(0, 2)
                data, at = b"", end
                while at > 0 and data.count(b"\n") <= count:
                    at = max(0, at - BLOCK)
                    file.seek(at)
                    data = file.read(end - at)
        except OSError:
            return []
        self._offset = end
        *whole, self._rest = data.split(b"\n")
        return [_text(line) for line in whole[-count:]] if count else []

    def _new(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                inode = _inode(self.path)
                size = file.seek(0, 2)
                if inode != self._inode or size < self._offset:
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


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _text(line: bytes) -> str:
    """The line as text that cannot drive the terminal: control characters stand as escapes."""
    text = line.decode(errors="replace").rstrip("\r")
    return "".join(char if char == "\t" or char.isprintable() else repr(char)[1:-1] for char in text)
