"""How the registry says no. Pure."""

from __future__ import annotations

from milkrun.errors import MilkrunError


class Refused(MilkrunError):
    """The request is not carried out and nothing changed; `status` and the text are what Consul answers."""

    code = "refused"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
