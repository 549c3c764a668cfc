"""The command line: one file a noun. Arguments, one call, print; heavy imports stay inside the commands."""

from __future__ import annotations

import sys


def main() -> None:
    """The process ends with the exit status of the command in `sys.argv` (DESIGN.md §3, command line)."""
    from milkrun.cli import crash, program

    crash.install()
    sys.exit(program.run(sys.argv[1:]))
