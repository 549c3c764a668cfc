"""A farm with quick rollouts and a remote that is not there, and what its commands say."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
from farm import Farm

from milkrun.cli.rollout_wait import read
from milkrun.consul import Registry
from milkrun.model import ServiceName
from milkrun.rollout.store import Shelf
from milkrun.up.record import load as record

OK = 0

GOAT = """command = ["{python}", "apps/goat.py"]

[env]
DAIRY_SICK = "9.9.9: never healthy"

[health]
interval_s = 0.2

[rollout]
steps = ["smoke", "weight 20%", "pause", "approve", "weight 60%"]
bake_s = 0.0
"""
FARMER = """command = ["{python}", "apps/farmer.py"]
needs = ["goat"]

[health]
interval_s = 0.2

[rollout]
strategy = "blue-green"
bake_s = 0.0
"""


class Dairy(Farm):
    """A farm of one goat and one farmer, and what its commands say."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._numbers = itertools.count(1)
        for service in ("goat", "farmer"):
            self.write(f"deploy/{service}.json", '{"version=0.0.1": {"weight": 100, "replicas": 1}}\n')
        self.write("services/goat.toml", GOAT)
        self.write("services/farmer.toml", FARMER)
        settings = (path / "milkrun.toml").read_text()
        self.write("milkrun.toml", f'{settings}\n[git]\npush = "file://{path.parent}/gone.git"\n')
        self.commit("Quick rollouts, and a remote that is not there")

    def write(self, file: str, text: str) -> None:
        (self.path / file).write_text(text)

    def version(self) -> str:
        """One that was never there."""
        return f"1.0.{next(self._numbers)}"

    def says(self, *arguments: str, status: int = OK) -> str:
        """The command ends with this status; returned is what it says to people."""
        done = self.milkrun(*arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    def shows(self, *arguments: str, status: int = OK) -> dict:
        """What the command prints as one JSON object."""
        done = self.milkrun(*arguments, "--json")
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def begun(self, version: str, *options: str, service: str = "goat") -> str:
        """The rollout's id."""
        return self.shows("deploy", service, version, "--no-wait", *options)["rollout"]

    def stands(self, service: str = "goat") -> tuple[Shelf, dict]:
        """What the registry has of the service's rollouts, and how the newest one stands. Commands show the same."""

        async def look() -> tuple[Shelf, dict]:
            async with Registry(self.address) as registry:
                shelf, seen = await read(registry, ServiceName(service))
                return shelf, msgspec.to_builtins(seen) if seen else {}

        return asyncio.run(look())

    def seen(self, service: str = "goat") -> dict:
        """How the newest rollout stands."""
        return self.stands(service)[1]

    def at(self, rollout: str, fact: Callable[[dict], bool], service: str = "goat") -> dict:
        """The rollout as it stands once the fact is true."""
        found: dict = {}

        def fits() -> bool:
            found.clear()
            found.update(self.seen(service))
            return found.get("rollout") == rollout and fact(found)

        self.eventually(fits, 60.0)
        return found

    def receipt(self, rollout: str, service: str = "goat") -> dict:
        """Its receipt, once it has one."""
        found: list[dict] = []

        def there() -> bool:
            history = self.stands(service)[0].history
            found[:] = [msgspec.to_builtins(receipt) for receipt in history if receipt.rollout == rollout]
            return bool(found)

        self.eventually(there, 60.0)
        return found[0]

    def pid(self, part: str) -> int:
        known = record(self.folder)
        assert known
        return known.parts[part].identity.pid

    def file(self) -> str:
        return self.git("show", "HEAD:deploy/goat.json")

    def edit(self, text: str) -> str:
        """Somebody else writes into the deploy file."""
        self.write("deploy/goat.json", text)
        return self.commit("by hand")


def at_step(name: str) -> Callable[[dict], bool]:
    """Whether the rollout is at this step."""
    return lambda seen: any(step["name"] == name and step["state"] == "now" for step in seen["steps"])


def held(seen: dict) -> bool:
    return bool(seen["paused"])
