"""What every settings file is before it is anything else: a small piece of plain UTF-8 text."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

from milkrun.errors import InputRefused

FILE_BYTES_AT_MOST = 1 << 20


def plain_text(data: bytes, file: str) -> str:
    """The file's text: UTF-8 without a byte order mark or NUL, 1 MiB at most; anything else is refused."""
    if len(data) > FILE_BYTES_AT_MOST:
        raise InputRefused(f"it has {len(data)} bytes; {FILE_BYTES_AT_MOST} is the most", file=file)
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise InputRefused(
            "it starts with a byte order mark",
            file=file,
            line=1,
            remedy="save it as plain UTF-8, without a BOM",
        )
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputRefused("it has a NUL byte in it", file=file, line=data.count(b"\n", 0, nul) + 1)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputRefused("it is not UTF-8 text", file=file, line=line) from error


def shown(word: str) -> str:
    """The word as it can stand in a message: quoted, on one line, not too long."""
    quoted = ascii(word)[1:-1] if not word.isprintable() else word
    return f"`{quoted[:80]}{'...' if len(quoted) > 80 else ''}`"


def typed(path: object) -> str:
    """The path as it is typed in a shell: quoted when it has spaces in it."""
    return shlex.quote(str(path))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word nearest to `word`; empty when none is near."""
    near = difflib.get_close_matches(word[:80], list(known), n=1, cutoff=0.6)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean `x`?)` with the known word nearest to `word`, or nothing when none is near."""
    near = nearest(word, known)
    return f" (did you mean `{near}`?)" if near else ""
