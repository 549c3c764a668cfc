"""The key that override cookies are signed with: a file that only its owner reads, on each router's host.

Another key in the file, and every cookie made before is worth nothing from the router's next start on.
"""

from __future__ import annotations

from pathlib import Path

from milkrun.host.secret import secret_at

NAME = "override.key"


def key_at(file: Path) -> bytes:
    """The file's key, which is made when there is none. Raises InputRefused for a bad file."""
    remedy = f"remove {file}: the next `milkrun override` or router makes a new one"
    return secret_at(file, "the key of override cookies", remedy)
