"""What runs without an `up` is found."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from milkrun.errors import Conflict
from milkrun.settings.environment import Environment, RouterSettings
from milkrun.settings.folder import Folder
from milkrun.up import leftovers
from milkrun.up.lock import DAEMON, only_one
from milkrun.up.parts import Kind, parts


def test_every_part_is_found_by_its_lock_alone(tmp_path: Path):
    """`up` is dead, and what it wrote down is gone or torn."""
    folder = Folder(tmp_path)
    router = RouterSettings(listen="127.0.0.1:1", stats="127.0.0.1:2", service="goat")
    known = parts(Environment(name="farm", routers={"lb-goat": router}), {})
    assert {part.kind for part in known} == set(Kind)
    with contextlib.ExitStack() as stack:
        for part in known:
            home = folder.router(part.name) if part.kind is Kind.ROUTER else folder.state / part.name
            stack.enter_context(only_one(home / DAEMON, Conflict))
        folder.up_file.write_text("{")
        found = leftovers.parts(folder)
    assert set(found) == {part.name for part in known}
    assert {identity.pid for identity in found.values()} == {os.getpid()}
    assert leftovers.parts(folder) == {}
