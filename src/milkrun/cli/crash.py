"""What a bug looks like to the person who meets it: one line, and where the rest is."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType


def install() -> None:
    """An exception that nobody handled is told in one line; its traceback is in a file."""
    sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get("MILKRUN_DEBUG") == "1":
        traceback.print_exception(kind, error, trace)
        return
    text = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {' '.join(sys.argv)}\n"
    text += "".join(traceback.format_exception(kind, error, trace))
    where = _kept(text)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    print(f"milkrun: a fault in milkrun itself: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
    print(f"  next: please report it with {where}", file=sys.stderr)  # noqa: T201


def _kept(text: str) -> str:
    """Where the traceback is from now on: the environment's crash.log, else nowhere but in a second try."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "milkrun.toml").is_file():
            log = folder / ".milkrun" / "crash.log"
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as file:
                    file.write(text + "\n")
            except OSError:
                break
            return f"the traceback in {log}"
    return "the traceback that MILKRUN_DEBUG=1 and the same command show"
