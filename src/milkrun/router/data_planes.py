"""Which data plane a router has: the one that its settings name, and only that one on this machine."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from milkrun.errors import PartMissing
from milkrun.router.front import Front
from milkrun.router.haproxy.binary import Binary
from milkrun.router.haproxy.plane import HAProxy
from milkrun.router.haproxy.process import Process
from milkrun.router.plane import Proxy

if TYPE_CHECKING:
    from milkrun.router.envoy.plane import Envoy


class DataPlanes:
    """The data planes of a router in `folder`. On leaving, whichever runs serves on, told nothing any more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._envoy: Envoy | None = None
        self._log = structlog.get_logger("router")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._envoy:
            await self._envoy.leave()

    async def chosen(self, front: Front, haproxy: HAProxy) -> Proxy:
        """The one that the front names; one of the other kind has ended its requests and is gone.

        Raises PartMissing when this machine does not have it: then the other one serves on.
        """
        if front.data_plane == "haproxy":
            await self._without_envoy(front)
            return haproxy
        if self._envoy:
            await self._envoy.stand(front)
            return self._envoy
        self._envoy = self._envoy_for(front)
        former = Process(self._folder, Binary("haproxy", ()))
        if former.adopt():
            self._log.warning("HAProxy is stopped: Envoy takes its place", router=front.name)
            await former.stop()
        return self._envoy

    async def _without_envoy(self, front: Front) -> None:
        if not (self._envoy or (self._folder / "envoy.process.json").exists()):
            return
        envoy, self._envoy = self._envoy or self._envoy_for(front), None
        if envoy.adopt():
            self._log.warning("Envoy is stopped: HAProxy takes its place", router=front.name)
        await envoy.stop()

    def _envoy_for(self, front: Front) -> Envoy:
        # Imported only where it is used: its messages come with an extra, and take a tenth of a second.
        try:
            from milkrun.router.envoy.binary import find  # noqa: PLC0415
            from milkrun.router.envoy.plane import Envoy  # noqa: PLC0415
        except ImportError as error:
            raise PartMissing(
                f"the router {front.name} has Envoy as its data plane, and {error.name} is not installed",
                remedy="pip install 'milkrun[envoy]', or set data_plane to haproxy in milkrun.toml",
            ) from error
        return Envoy(self._folder, find(), front)
