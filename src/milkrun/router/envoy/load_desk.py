"""Where Envoys elsewhere report what they carry (gRPC's load reporting service), beside the discovery server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
from envoy.config.endpoint.v3.load_report_pb2 import ClusterStats
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from envoy.service.load_stats.v3.lrs_pb2_grpc import LoadReportingServiceServicer

from milkrun.errors import InputRefused
from milkrun.router.envoy.loads import REPORT_S, Load, Loads, Report, Reporter
from milkrun.router.envoy.messages import duration
from milkrun.router.envoy.readback import Place, plain


class LoadDesk(LoadReportingServiceServicer):  # type: ignore[misc]
    """Takes each Envoy's reports into `loads`, `at_most` at a time. `followed` says which wish a node has followed."""

    def __init__(self, loads: Loads, followed: Callable[[str], int], at_most: int) -> None:
        self._loads = loads
        self._followed = followed
        self._at_most = at_most

    # The name is the protocol's.
    async def StreamLoadStats(  # noqa: N802
        self, requests: AsyncIterator[LoadStatsRequest], context: Any
    ) -> None:
        """One Envoy's reports, until the stream ends. Only its first message says who it is."""
        if len(self._loads.reporters) >= self._at_most:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many Envoys report to this router")
        reporter: Reporter | None = None
        try:
            async for request in requests:
                if reporter is None:
                    reporter = Reporter(request.node.id)
                    self._loads.reporters.add(reporter)
                    await context.write(_ASKED)
                else:
                    followed = self._followed(reporter.node)
                    self._loads.hear(reporter, report(request.cluster_stats), followed)
        except InputRefused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            if reporter:
                self._loads.reporters.discard(reporter)


_ASKED = LoadStatsResponse(
    send_all_clusters=True, report_endpoint_granularity=True, load_reporting_interval=duration(REPORT_S)
)


def report(stats: Iterable[ClusterStats]) -> Report:
    """The message as values. Raises InputRefused for one that does not say which endpoint had what."""
    found: dict[str, dict[Place, Load]] = {}
    for cluster in stats:
        places = found.setdefault(cluster.cluster_name, {})
        for locality in cluster.upstream_locality_stats:
            if locality.total_issued_requests and not locality.upstream_endpoint_stats:
                raise InputRefused(
                    "the loads of each endpoint are needed, as Envoy reports them from 1.37 on"
                )
            for each in locality.upstream_endpoint_stats:
                socket = each.address.socket_address
                if not socket.address:
                    continue  # a socket in a folder: none of ours
                place = _plain(socket.address), socket.port_value
                load = places.get(place, Load())
                places[place] = Load(
                    issued=load.issued + each.total_issued_requests,
                    requests=load.requests + each.total_successful_requests + each.total_error_requests,
                    failures=load.failures + each.total_error_requests,
                    in_progress=load.in_progress + each.total_requests_in_progress,
                )
    return found


def _plain(address: str) -> str:
    try:
        return plain(address)
    except ValueError as error:
        raise InputRefused(f"{address[:80]!r} is no address") from error
