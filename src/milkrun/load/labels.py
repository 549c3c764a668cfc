"""Who answered: the labels that an answer's JSON carries. Pure."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import msgspec

_OBJECTS_AT_MOST = 1000
_TEXT_AT_MOST = 200


class Label(NamedTuple):
    """Which instance of which version of a service had a part in an answer. `instance` may be empty."""

    service: str
    version: str
    instance: str


def read(body: bytes) -> tuple[str, list[Label]]:
    """The request id that the answer names at its top (empty: none), and each label in it once.

    A label is any JSON object, however deep, with the texts `service` and `version`. A body that is not JSON
    has none. The first 1,000 objects and lists are looked at.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", []
    request = _text(document.get("request")) if isinstance(document, dict) else ""
    return request, list(dict.fromkeys(_labels(document)))


def _labels(document: Any) -> list[Label]:
    found = []
    places = [document]
    for place in places:  # grows while it is walked: what is inside is looked at after what is around it
        inner: Any = ()
        if isinstance(place, dict):
            service, version = _text(place.get("service")), _text(place.get("version"))
            if service and version:
                found.append(Label(service, version, _text(place.get("instance"))))
            inner = place.values()
        elif isinstance(place, list):
            inner = place
        inside = (value for value in inner if isinstance(value, dict | list))
        places.extend(islice(inside, _OBJECTS_AT_MOST - len(places)))
    return found


def _text(value: Any) -> str:
    """The value if it is a text that may stand on a terminal, else an empty one."""
    if isinstance(value, str) and len(value) <= _TEXT_AT_MOST and value.isprintable():
        return value
    return ""
