"""Open-loop HTTP load with a ledger: what was sent, answered once, by which version, and how late."""

from milkrun.load.figures import Connections, Figures, Latency, Plan, VersionShare
from milkrun.load.generator import run

__all__ = ["Connections", "Figures", "Latency", "Plan", "VersionShare", "run"]
