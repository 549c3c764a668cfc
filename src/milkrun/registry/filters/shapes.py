"""Which selectors each kind of answer has, as Consul 1.8.7 names them. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """A field that has no fields of its own."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    TEXTS = "texts"


class Fields(msgspec.Struct, frozen=True):
    """An object with these fields."""

    of: dict[str, Shape]


class Named(msgspec.Struct, frozen=True):
    """A map from any name to such values."""

    of: Shape


class Each(msgspec.Struct, frozen=True):
    """A list of such objects; a comparison holds when it holds for one of them."""

    of: Fields


Shape = Kind | Fields | Named | Each

TEXT, NUMBER, FLAG, TEXTS = Kind.TEXT, Kind.NUMBER, Kind.FLAG, Kind.TEXTS
_TEXT_MAP = Named(TEXT)
_WEIGHTS = Fields({"Passing": NUMBER, "Warning": NUMBER})
_ADDRESSES = Named(Fields({"Address": TEXT, "Port": NUMBER}))
_CONNECT = Fields({"Native": FLAG})
_PROXY = Fields(
    {
        "DestinationServiceID": TEXT,
        "DestinationServiceName": TEXT,
        "LocalServiceAddress": TEXT,
        "LocalServicePort": NUMBER,
        "Mode": TEXT,
    }
)

CHECK = Fields(
    {
        "Node": TEXT,
        "CheckID": TEXT,
        "Name": TEXT,
        "Status": TEXT,
        "Notes": TEXT,
        "Output": TEXT,
        "ServiceID": TEXT,
        "ServiceName": TEXT,
        "ServiceTags": TEXTS,
        "Type": TEXT,
    }
)
NODE = Fields(
    {
        "ID": TEXT,
        "Node": TEXT,
        "Address": TEXT,
        "Datacenter": TEXT,
        "TaggedAddresses": _TEXT_MAP,
        "Meta": _TEXT_MAP,
    }
)
SERVICE = Fields(
    {
        "Kind": TEXT,
        "ID": TEXT,
        "Service": TEXT,
        "Tags": TEXTS,
        "Address": TEXT,
        "TaggedAddresses": _ADDRESSES,
        "Meta": _TEXT_MAP,
        "Port": NUMBER,
        "Weights": _WEIGHTS,
        "EnableTagOverride": FLAG,
        "Proxy": _PROXY,
        "Connect": _CONNECT,
    }
)
CATALOG_ROW = Fields(
    {
        "ID": TEXT,
        "Node": TEXT,
        "Address": TEXT,
        "Datacenter": TEXT,
        "TaggedAddresses": _TEXT_MAP,
        "NodeMeta": _TEXT_MAP,
        "ServiceKind": TEXT,
        "ServiceID": TEXT,
        "ServiceName": TEXT,
        "ServiceTags": TEXTS,
        "ServiceAddress": TEXT,
        "ServiceTaggedAddresses": _ADDRESSES,
        "ServiceWeights": _WEIGHTS,
        "ServiceMeta": _TEXT_MAP,
        "ServicePort": NUMBER,
        "ServiceEnableTagOverride": FLAG,
        "ServiceProxy": _PROXY,
        "ServiceConnect": _CONNECT,
    }
)
HEALTH_ENTRY = Fields({"Node": NODE, "Service": SERVICE, "Checks": Each(CHECK)})
