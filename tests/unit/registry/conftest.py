from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from milkrun.registry import commands
from milkrun.registry.nouns import Node, Service, Session
from milkrun.registry.state import Machine

OWN = Node(id="00000000-0000-0000-0000-000000000001", node="n1", address="127.0.0.1")


class Bench:
    """A machine with a clock that the test moves, and the rows that a disk would hold."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.machine = Machine("n1")
        self.disk: dict[tuple[str, str], bytes] = {}
        self.touched: set[str] = set()
        self.touched_keys: list[str] = []
        self.wrote = 0
        self.do(commands.Announce(OWN))

    def do(self, command: commands.Command) -> Any:
        result = self.machine.apply(command, self.now)
        rows, self.touched, self.touched_keys = self.machine.ledger.take()
        self.wrote = len(rows)
        for row, body in rows.items():
            if body is None:
                self.disk.pop(row, None)
            else:
                self.disk[row] = body
        return result

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.do(commands.Expire())

    def restart(self) -> None:
        rows = [(kind, body) for (kind, _), body in self.disk.items()]
        self.machine = Machine.restore("n1", self.machine.ledger.index, rows, self.now)

    def session(self, number: int = 1, **fields: Any) -> str:
        wanted = {"ttl": "10s", "lock_delay": 0, **fields}
        session = Session(id=f"{number:08d}-0000-0000-0000-000000000000", node="n1", **wanted)
        return str(self.do(commands.CreateSession(session)))

    def checks(self, name: str) -> dict[str, str]:
        """The statuses of the checks of a service's instances."""
        return {
            check.check_id: check.status
            for (node, service_id) in self.machine.catalog.named.get(name, {})
            for check in self.machine.catalog.service_checks.get((node, service_id), {}).values()
        }


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def goat() -> Callable[..., Service]:
    def make(service_id: str = "goat-1", **fields: Any) -> Service:
        return Service(id=service_id, service="goat", **fields)

    return make
