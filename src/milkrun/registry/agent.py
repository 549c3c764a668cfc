"""What the registry's own agent does for its services: TTL checks, maintenance, reaping. Pure.

Texts and rules are Consul's (agent/agent.go and agent/checks of 1.8; the contract suite compares with 1.8.7).
"""

from __future__ import annotations

import msgspec

from milkrun.registry import topics
from milkrun.registry.catalog import Catalog
from milkrun.registry.deadlines import Deadlines, Timer
from milkrun.registry.ledger import Ledger
from milkrun.registry.nouns import (
    CRITICAL,
    NODE_MAINTENANCE,
    SERVICE_MAINTENANCE,
    Check,
    CheckSpec,
    Service,
)
from milkrun.registry.refusal import Refused

KIND = "check-spec"
OUTPUT_AT_MOST = 4096
_EXPIRED = "TTL expired"


class Agent:
    """The checks that this node's agent keeps, in the catalog of this node."""

    def __init__(self, ledger: Ledger, catalog: Catalog, deadlines: Deadlines) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._deadlines = deadlines
        self.node = ""
        self.specs: dict[str, CheckSpec] = {}
        self._moved: set[str] = set()

    def load(self, spec: CheckSpec, now: float) -> None:
        """The check is kept, with its whole time to live before it."""
        self.specs[spec.check_id] = spec
        self._start(spec, now)
        check = self._catalog.checks.get(self.node, {}).get(spec.check_id)
        if check:
            self._watch_critical(spec, check.status, now)

    def register(self, service: Service, specs: list[CheckSpec], now: float, *, replace: bool) -> None:
        """The service is registered with these checks; a check that was there keeps its status and output.

        With `replace`, the service has no other checks than these.
        """
        self._catalog.put_service(self.node, service)
        if replace:
            wanted = {spec.check_id for spec in specs}
            for check_id in list(self._catalog.service_checks.get((self.node, service.id), {})):
                if check_id not in wanted and not check_id.startswith(SERVICE_MAINTENANCE):
                    self._catalog.drop_check(self.node, check_id)
        for spec in specs:
            self.register_check(spec, now)

    def register_check(self, spec: CheckSpec, now: float) -> None:
        """The check is registered and its clock starts."""
        service = self._catalog.services.get(self.node, {}).get(spec.service_id)
        if spec.service_id and service is None:
            raise Refused(500, f'ServiceID "{spec.service_id}" does not exist')
        old = self._catalog.checks.get(self.node, {}).get(spec.check_id)
        check = Check(
            node=self.node,
            check_id=spec.check_id,
            name=spec.name,
            status=old.status if old else spec.status or CRITICAL,
            notes=spec.notes,
            output=old.output if old else "",
            service_id=spec.service_id,
            service_name=service.service if service else "",
            service_tags=service.tags if service else [],
            type=spec.type,
        )
        self._catalog.put_check(check)
        if self.specs.get(spec.check_id) != spec:
            self.specs[spec.check_id] = spec
            self._ledger.put(KIND, spec.check_id, spec)
            self._tell_runner(spec.check_id)
        self._start(spec, now)
        self._watch_critical(spec, check.status, now)

    def keep(self, spec: CheckSpec, now: float) -> None:
        """The check, which is in the catalog, is kept like this, with its whole time to live before it."""
        if self.specs.get(spec.check_id) != spec:
            self._ledger.put(KIND, spec.check_id, spec)
            self._tell_runner(spec.check_id)
        self.load(spec, now)

    def forget(self, check_id: str) -> None:
        """The check, which has left the catalog, is kept no more."""
        if self.specs.pop(check_id, None):
            self._ledger.drop(KIND, check_id)
            self._tell_runner(check_id)
            self._deadlines.cancel(Timer.TTL, check_id)
            self._deadlines.cancel(Timer.REAP, check_id)

    def report(self, check_id: str, status: str, output: str, now: float) -> None:
        """The TTL check has this status and output, and its clock starts anew."""
        spec = self.specs.get(check_id)
        if spec is None or not spec.ttl_s:
            raise Refused(500, f'CheckID "{check_id}" does not have associated TTL')
        self._start(spec, now)
        self._set(spec, status, _cut(output), now)

    def report_probe(self, spec: CheckSpec, status: str, output: str, now: float) -> None:
        """The check has this status and output, unless its definition changed while the probe ran."""
        if self.specs.get(spec.check_id) == spec:
            self._set(spec, status, output, now)

    def take_moved(self) -> set[str]:
        """The checks whose definition came, changed or went since the last call, for whoever runs the probes."""
        moved, self._moved = self._moved, set()
        return moved

    def expired(self, check_id: str, now: float) -> None:
        """The TTL check is critical, because nobody reported in time. It may have been taken out just now."""
        if check_id not in self.specs:
            return
        check = self._catalog.checks[self.node][check_id]
        output = check.output
        if not output.startswith(_EXPIRED):
            last = f" (last output before timeout follows): {output}" if output else ""
            output = f"{_EXPIRED}{last}"
        self._set(self.specs[check_id], CRITICAL, output, now)

    def reap(self, check_id: str) -> None:
        """The service whose check was critical for too long is not registered."""
        if check_id in self.specs:
            self._catalog.drop_service(self.node, self.specs[check_id].service_id)

    def maintain_service(self, service_id: str, *, enable: bool, reason: str) -> None:
        """The service is in maintenance, or no longer."""
        service = self._catalog.services.get(self.node, {}).get(service_id)
        if service is None:
            raise Refused(404, f'No service registered with ID "{service_id}"')
        self._maintain(f"{SERVICE_MAINTENANCE}{service_id}", service, enable=enable, reason=reason)

    def maintain_node(self, *, enable: bool, reason: str) -> None:
        """The whole node is in maintenance, or no longer."""
        self._maintain(NODE_MAINTENANCE, None, enable=enable, reason=reason)

    def _maintain(self, check_id: str, service: Service | None, *, enable: bool, reason: str) -> None:
        if not enable:
            self._catalog.drop_check(self.node, check_id)
            return
        if check_id in self._catalog.checks.get(self.node, {}):
            return
        what = "service" if service else "node"
        default = (
            f"Maintenance mode is enabled for this {what}, but no reason was provided. "
            "This is a default message."
        )
        self._catalog.put_check(
            Check(
                node=self.node,
                check_id=check_id,
                name=f"{what.capitalize()} Maintenance Mode",
                notes=reason or default,
                service_id=service.id if service else "",
                service_name=service.service if service else "",
                service_tags=service.tags if service else [],
                type="maintenance",
            )
        )

    def _set(self, spec: CheckSpec, status: str, output: str, now: float) -> None:
        check = self._catalog.checks[self.node][spec.check_id]
        if check.status != status or check.output != output:
            self._catalog.put_check(msgspec.structs.replace(check, status=status, output=output))
            self._watch_critical(spec, status, now)

    def _tell_runner(self, check_id: str) -> None:
        self._moved.add(check_id)
        self._ledger.touch(topics.PROBES)

    def _start(self, spec: CheckSpec, now: float) -> None:
        if spec.ttl_s:
            self._deadlines.set(Timer.TTL, spec.check_id, now + spec.ttl_s)

    def _watch_critical(self, spec: CheckSpec, status: str, now: float) -> None:
        """A probe that nobody runs must not take its service away."""
        if status != CRITICAL or not spec.deregister_after_s or not spec.kept or not spec.service_id:
            self._deadlines.cancel(Timer.REAP, spec.check_id)
        elif not self._deadlines.is_set(Timer.REAP, spec.check_id):
            self._deadlines.set(Timer.REAP, spec.check_id, now + spec.deregister_after_s)


def _cut(output: str) -> str:
    if len(output) <= OUTPUT_AT_MOST:
        return output
    return f"{output[:OUTPUT_AT_MOST]} ... (captured {OUTPUT_AT_MOST} of {len(output)} bytes)"
