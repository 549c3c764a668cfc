"""The one door to a registry: Consul's HTTP API, the same on the embedded one and on a Consul cluster."""

from milkrun.consul.client import Address, Answer, Registry
from milkrun.consul.session import Session
from milkrun.consul.watch import Watch

__all__ = ["Address", "Answer", "Registry", "Session", "Watch"]
