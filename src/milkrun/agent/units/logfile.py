"""An instance's log: a file that it appends to, whether the agent lives or not."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

BYTES_AT_MOST = 10 * 1024 * 1024


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor that appends to the file, for a child to inherit; the caller's is closed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def rotate(path: Path, bytes_at_most: int = BYTES_AT_MOST) -> bool:
    """True when the log was over the limit: it then stands in `<log>.1`, and the log starts anew.

    Copied and cut, not renamed: the instance keeps its descriptor. What it writes between the two is lost.
    """
    try:
        if path.stat().st_size <= bytes_at_most:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True
