"""Runs PROGRAM [ARGUMENT]..., which does not outlive who holds the other end of stdin, not even one who is killed.

It leads a group of its own. When the program has ended, its status is on stderr. Nothing of milkrun is imported, so it
starts in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

CANNOT_START = 127


def main(words: list[str]) -> None:
    """The program has ended, and its status is told."""
    threading.Thread(target=_watch, daemon=True).start()
    try:
        status = subprocess.run(
            words, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False
        ).returncode
    except OSError as error:
        print(f"{words[0]} cannot be started: {error.strerror or error}", flush=True)  # noqa: T201 - as the program would
        status = CANNOT_START
    os.write(2, str(status).encode())


def _watch() -> None:
    """The group is gone when the holder is."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
