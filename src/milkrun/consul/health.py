"""A service's health answers as instances, one answer after the other."""

from __future__ import annotations

import msgspec

from milkrun.consul import catalog, wire
from milkrun.consul.client import decode
from milkrun.model import Instance


class HealthReader:
    """Reads a watch's answers. What is in an answer as it was in the one before is not read again, and is the same
    object: of ten thousand instances mostly one has changed.
    """

    def __init__(self) -> None:
        self._body: bytes | None = None
        self._read: dict[bytes, Instance] = {}
        self._instances: list[Instance] = []

    def read(self, body: bytes) -> list[Instance]:
        """The instances of an answer, by id. Raises RegistryRefused when it is of another shape, and the next
        answer is then compared with the last that was not.
        """
        if body == self._body:
            return self._instances
        entries = [bytes(raw) for raw in decode(body, list[msgspec.Raw])]
        found: dict[bytes, Instance] = {}
        for entry in entries:
            found[entry] = self._read.get(entry) or _instance(entry)
        self._body, self._read = body, found
        self._instances = sorted((found[entry] for entry in entries), key=lambda instance: instance.id)
        return self._instances


def _instance(entry: bytes) -> Instance:
    (instance,) = catalog.instances([decode(entry, wire.HealthEntry)])
    return instance
