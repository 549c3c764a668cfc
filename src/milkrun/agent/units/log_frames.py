"""What a container wrote, as the engine gives it: frames, each a line or a part of one with its time. Pure.

A frame: one byte for the stream, three of zero, four for the length (big-endian), then so many bytes: a time, a
space, the text. Source: Docker Engine API, "Attach to a container", stream format.
"""

from __future__ import annotations

import re
from datetime import datetime

HEADER = 8
FRAME_AT_MOST = 1 << 24
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z) ?")


class Unframed:
    """Blocks in any sizes become text. `last` is the time of the last frame that was read; empty before."""

    def __init__(self) -> None:
        self.last = ""
        self._rest = bytearray()

    def take(self, block: bytes) -> bytes:
        """The text of all frames that are whole by now. ValueError when these are no frames."""
        self._rest += block
        found = bytearray()
        while len(self._rest) >= HEADER:
            size = int.from_bytes(self._rest[4:HEADER], "big")
            if self._rest[0] > 3 or any(self._rest[1:4]) or size > FRAME_AT_MOST:
                raise ValueError("no frame of a container's log")
            if len(self._rest) < HEADER + size:
                break
            found += self._text(bytes(self._rest[HEADER : HEADER + size]))
            del self._rest[: HEADER + size]
        return bytes(found)

    def _text(self, frame: bytes) -> bytes:
        stamp = _TIME.match(frame)
        if stamp is None:
            return frame
        self.last = stamp[1].decode()
        return frame[stamp.end() :]


def after(stamp: str) -> str:
    """The moment just after this time, as the engine takes it: `SECONDS.NANOSECONDS`; the beginning for none."""
    moment = nanoseconds(stamp)
    return f"{(moment + 1) // 10**9}.{(moment + 1) % 10**9:09}" if moment else "0"


def nanoseconds(stamp: str) -> int:
    """The time of the engine's text (`2026-11-20T20:04:32.5Z`) since 1970; 0 for what is none."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    except ValueError:
        return 0
    return seconds * 10**9 + (int(fraction[:9].ljust(9, "0")) if fraction.isdigit() else 0)
