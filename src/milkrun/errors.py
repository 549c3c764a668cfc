"""The errors a person can act on.

    MilkrunError                    exit 1   something failed
    ├── UsageError                  exit 2   the command was typed wrong
    ├── NotFound                    exit 3   no such service, version, instance, environment
    ├── Conflict                    exit 4   somebody else holds it, or changed it meanwhile
    ├── TimedOut                    exit 5   the wait ended before the fact came true
    ├── RegistryUnreachable         exit 6   nobody answers at the registry's address
    ├── RegistryRefused             exit 1   the registry answered, and said no
    ├── Degraded                    exit 7   it works, but not as it should
    ├── InputRefused                exit 8   a file or value is wrong; what was there stays
    ├── PortTaken                   exit 4   another program listens on the port
    ├── PartMissing                 exit 1   a program that is needed is not on this machine
    ├── StorageFailed               exit 1   the registry's disk cannot be trusted any more
    └── DataPlaneError              exit 1   HAProxy refused, or did not answer

Each carries what happened, why (in the message), and `remedy`: what to do next, usually a command.
"""

from __future__ import annotations


class MilkrunError(Exception):
    """Something failed. `message` says what and why, `remedy` what to do next."""

    code = "failed"
    exit_status = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(MilkrunError):
    """The command was typed wrong."""

    code = "usage"
    exit_status = 2


class NotFound(MilkrunError):
    """There is no such service, version, instance or environment."""

    code = "not-found"
    exit_status = 3


class Conflict(MilkrunError):
    """Somebody else holds it, or changed it meanwhile."""

    code = "conflict"
    exit_status = 4


class PortTaken(Conflict):
    """Another program listens on the port."""

    code = "port-taken"


class TimedOut(MilkrunError):
    """The wait ended before the fact came true."""

    code = "timed-out"
    exit_status = 5


class RegistryUnreachable(MilkrunError):
    """Nobody answers at the registry's address."""

    code = "registry-unreachable"
    exit_status = 6


class RegistryRefused(MilkrunError):
    """The registry answered, and said no. `status` is its HTTP status."""

    code = "registry-refused"

    def __init__(self, message: str, *, status: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Degraded(MilkrunError):
    """It works, but not as it should."""

    code = "degraded"
    exit_status = 7


class InputRefused(MilkrunError):
    """A file or value is wrong; what was there before stays.

    `file` and `line` (from 1; 0 when the whole file is meant) say where.
    """

    code = "input-refused"
    exit_status = 8

    def __init__(self, reason: str, *, file: str = "", line: int = 0, remedy: str = "") -> None:
        place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"{place}{reason}", remedy=remedy)
        self.reason = reason
        self.file = file
        self.line = line


class PartMissing(MilkrunError):
    """A program that is needed is not on this machine."""

    code = "part-missing"


class StorageFailed(MilkrunError):
    """The registry's disk no longer holds what it is told to hold. Only a restart knows what is there."""

    code = "storage-failed"


class DataPlaneError(MilkrunError):
    """The data plane refused an operation or did not answer in time."""

    code = "data-plane"
