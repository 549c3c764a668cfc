"""An agent as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from milkrun.agent.daemon import run
from milkrun.consul import Address

url, host, state_dir, folder = sys.argv[1:]
asyncio.run(
    run(Address(url=url), host=host, state_dir=Path(state_dir), folder=Path(folder), handover=asyncio.Event())
)
