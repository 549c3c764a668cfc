"""Whole numbers in request bodies: what 64 bits do not hold is refused, as Go refuses it.

The disk could not keep such a number, and one service with it would keep Go's clients from reading any of an answer.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Uint = Annotated[int, msgspec.Meta(ge=0)]
"""Of JSON that `parsed` has read: it holds nothing above 64 bits."""

_LONG = re.compile(rb"[0-9]{19}")
"""Nothing shorter is too large, and hardly any body has a number as long."""


def parsed(raw: bytes) -> Any:
    """The JSON value. Raises DecodeError for what is none, and for whole numbers that 64 bits do not hold."""
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError as error:  # msgspec's own word for a string that is no UTF-8
        raise msgspec.DecodeError(f"a string is not UTF-8: {error.reason}") from error
    if _LONG.search(raw):
        _check(value)
    return value


def _check(value: Any) -> None:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise msgspec.ValidationError("a whole number is out of range")
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check(each)
