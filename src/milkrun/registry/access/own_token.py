"""The registry's own token: a file that only its owner reads. Who holds it may do everything.

It is made at the first start, so that there is no moment in which anyone may write, and no step by hand. The
file is the truth: put another secret into it and restart, and the old one is worth nothing.
"""

from __future__ import annotations

from pathlib import Path

from milkrun.host.secret import secret_at
from milkrun.registry.access.tokens import digest_of

NAME = "token"


def digest_at(file: Path) -> str:
    """The digest of the file's token, which is made when there is none. Raises InputRefused for a bad file."""
    remedy = f"remove {file}: the registry makes a new one when it starts"
    return digest_of(secret_at(file, "the registry's token file", remedy))
