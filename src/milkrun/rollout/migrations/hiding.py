"""What a program prints as whole lines, with nothing of the database's address in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

LINE_BYTES_AT_MOST = 1 << 16
HIDDEN = "***"
TOO_LONG = "(a line that is too long to be shown)"

_END = re.compile(rb"[\r\n]+")
_PASSWORD = re.compile(r"://[^/@]*?:([^@]*)@|(?:^|[?&\s])(?:ssl)?password\s*=\s*('(?:\\.|[^'\\])*'|[^&\s]*)")


def secrets(url: str) -> list[str]:
    """What may be shown nowhere: the URL, and its passwords in each form in which a program may know them."""
    found = {url}
    for match in _PASSWORD.finditer(url):
        raw = match[1] or match[2] or ""
        plain = re.sub(r"\\(.)", r"\1", raw[1:-1]) if raw.startswith("'") else unquote(raw)
        found |= {raw, plain, quote(plain), quote(plain, safe=""), *plain.splitlines()}
    return sorted(found - {""}, key=len, reverse=True)


class Lines:
    """Takes what is printed piece by piece. A line is looked at only as a whole: a piece may end within a secret."""

    def __init__(self, hidden: Iterable[str]) -> None:
        self._hidden = sorted(hidden, key=len, reverse=True)
        self._rest, self._skips = b"", False

    def feed(self, data: bytes) -> list[str]:
        """The lines that have ended with this piece, but for empty ones."""
        *ended, self._rest = _END.split(self._rest + data)
        found = [self._shown(line) for line in ended]
        if self._skips and ended:
            found[0], self._skips = TOO_LONG, False
        if len(self._rest) > LINE_BYTES_AT_MOST:
            self._rest, self._skips = b"", True
        return [line for line in found if line]

    def end(self) -> list[str]:
        """The last line, when it had no end."""
        return self.feed(b"\n")

    def _shown(self, line: bytes) -> str:
        text = line.decode(errors="replace")
        for each in self._hidden:
            text = text.replace(each, HIDDEN)
        return text.strip()
