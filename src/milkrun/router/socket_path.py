"""How a UNIX socket is reached whatever the length of its folder's path: the kernel takes 107 bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def socket_path(folder: Path, name: str) -> Iterator[str]:
    """While inside, the path is short, and means the socket of that name in the folder. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
