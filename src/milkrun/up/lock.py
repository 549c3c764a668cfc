"""The lock file that makes a process the only one of its kind in a folder: it goes with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from milkrun.errors import Conflict, MilkrunError

DAEMON = "daemon.lock"
"""Each part's lock file in its own state folder."""


@contextmanager
def only_one(path: Path, refusal: Callable[[str], Conflict]) -> Iterator[None]:
    """While inside, this process alone holds the lock; else `refusal` of the holder's pid is raised."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MilkrunError(
            f"{path} cannot be written: {error.strerror}", remedy="name a folder that you may write to"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refusal(_pid(descriptor) or "unknown") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock now; None when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _pid(descriptor)
        return int(pid) if pid.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def _pid(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode(errors="replace").strip()
