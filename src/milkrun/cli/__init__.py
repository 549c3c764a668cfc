"""The command line: one file a noun. Arguments, one call, print; heavy imports stay inside the commands."""

from __future__ import annotations

import sys


def main() -> None:
    """The process ends with the exit status of the command in `sys.argv` (DESIGN.md §3, command line)."""
    try:
        from milkrun.cli import crash, program

        crash.install()
        status = program.run(sys.argv[1:])
    except KeyboardInterrupt:  # while the imports are under way: there is nothing to tidy up yet
        status = 130
    sys.exit(status)
