"""On which line of a TOML text each key stands. Pure.

tomllib says only what a text means. This pass reads a text that tomllib has taken, so it need not judge it,
only keep count of where its keys and array items begin.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys, and numbers for items of arrays."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) on which each key, table and array item of a valid TOML text first begins."""
    return _Scan(text).found


def nearest(known: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of what holds it when it is not in the text itself; 0 for the whole file."""
    while path and path not in known:
        path = path[:-1]
    return known.get(path, 0)


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._tables: dict[Path, int] = {}
        self.found: dict[Path, int] = {}
        prefix: Path = ()
        self._blank()
        while self._at < len(text):
            if text.startswith("[", self._at):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._blank()

    def _header(self) -> Path:
        width = 2 if self._text.startswith("[[", self._at) else 1
        self._at += width
        path = self._resolved(self._key())
        if width == 2:
            number = self._tables[path] = self._tables.get(path, -1) + 1
            self._note(path)
            path = (*path, number)
        self._note(path)
        self._at += width
        return path

    def _resolved(self, keys: Path) -> Path:
        """The path with the number of the latest item wherever it goes through an array of tables."""
        path: Path = ()
        for number, key in enumerate(keys, start=1):
            path = (*path, key)
            if path in self._tables and number < len(keys):
                path = (*path, self._tables[path])
        return path

    def _pair(self, prefix: Path) -> None:
        path = (*prefix, *self._key())
        self._note(path, base=len(prefix))
        self._at += 1  # the equals sign
        self._value(path)

    def _key(self) -> Path:
        parts: list[str | int] = []
        while True:
            self._blank()
            quoted = _STRING.match(self._text, self._at)
            if quoted:
                parts.append(tomllib.loads(f"k = {quoted[0]}")["k"])
                self._at = quoted.end()
            else:
                bare = _BARE_KEY.match(self._text, self._at)
                parts.append(bare[0] if bare else "")
                self._at = bare.end() if bare else self._at
            self._blank()
            if not self._text.startswith(".", self._at):
                return tuple(parts)
            self._at += 1

    def _value(self, path: Path) -> None:
        self._blank()
        first = self._text[self._at : self._at + 1]
        if first == "[":
            self._items(path)
        elif first == "{":
            self._at += 1
            self._blank()
            while not self._ends("}"):
                self._pair(path)
                self._comma()
            self._at += 1
        else:
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            self._at = match.end() if match else len(self._text)

    def _items(self, path: Path) -> None:
        self._at += 1
        self._blank()
        number = 0
        while not self._ends("]"):
            self._note((*path, number))
            self._value((*path, number))
            self._comma()
            number += 1
        self._at += 1

    def _ends(self, bracket: str) -> bool:
        return self._at >= len(self._text) or self._text.startswith(bracket, self._at)

    def _comma(self) -> None:
        self._blank()
        if self._text.startswith(",", self._at):
            self._at += 1
            self._blank()

    def _note(self, path: Path, *, base: int = 0) -> None:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        for length in range(base + 1, len(path) + 1):
            self.found.setdefault(path[:length], self._line)

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
