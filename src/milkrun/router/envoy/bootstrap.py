"""What Envoy starts from: who it is, where it asks for the rest, and its admin socket. Pure.

The sockets are named by the folder that Envoy gets as an open file: a UNIX socket's path may have 107 bytes, and
the folder's may be longer.
"""

from __future__ import annotations

import msgspec

from milkrun.router.envoy.counting import BUCKETS_MS, TIMED

ADS_SOCKET = "ads.sock"
ADMIN_SOCKET = "admin.sock"
BOOTSTRAP_FILE = "envoy.json"
FOLDER_DESCRIPTOR = 3


def bootstrap(node: str) -> bytes:
    """The file's content. `node` is how the discovery server knows this Envoy."""
    again = {"base_interval": "0.05s", "max_interval": "1s"}
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "ads", "retry_policy": {"retry_back_off": again}}}],
    }
    ours = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return msgspec.json.encode(
        {
            "node": {"id": node, "cluster": "milkrun"},
            "admin": {"address": _pipe(ADMIN_SOCKET)},
            "dynamic_resources": {"ads_config": ads, "cds_config": ours, "lds_config": ours},
            "static_resources": {
                "clusters": [_cluster("ads", ADS_SOCKET, http2=True), _cluster("admin", ADMIN_SOCKET)]
            },
            "stats_config": {
                "histogram_bucket_settings": [{"match": {"suffix": TIMED}, "buckets": BUCKETS_MS}]
            },
            "stats_flush_interval": "1s",  # so far histograms are behind the counters
            # Without a limit Envoy warns; this one is above what a process may open.
            "overload_manager": {
                "resource_monitors": [
                    {
                        "name": "envoy.resource_monitors.global_downstream_max_connections",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                            ".downstream_connections.v3.DownstreamConnectionsConfig",
                            "max_active_downstream_connections": 1_000_000,
                        },
                    }
                ]
            },
        }
    )


def _pipe(name: str) -> dict[str, object]:
    return {"pipe": {"path": f"/proc/self/fd/{FOLDER_DESCRIPTOR}/{name}", "mode": 0o600}}


def _cluster(name: str, socket: str, *, http2: bool = False) -> dict[str, object]:
    found: dict[str, object] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _pipe(socket)}}]}],
        },
    }
    if http2:
        options = {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        found["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        }
    return found
