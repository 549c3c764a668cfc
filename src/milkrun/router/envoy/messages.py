"""The small messages that all others are made of. Pure."""

from __future__ import annotations

from envoy.config.core.v3.config_source_pb2 import ConfigSource
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

FROM_US = ConfigSource(ads={}, resource_api_version="V3", initial_fetch_timeout=Duration())
"""By the stream that all comes by. However long it takes: what is changed waits, and what was there serves."""


def duration(seconds: float) -> Duration:
    """The same time as a message."""
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def packed(message: Message) -> AnyMessage:
    """The message with the name of its type, the same bytes each time."""
    found = AnyMessage()
    found.Pack(message, deterministic=True)
    return found
