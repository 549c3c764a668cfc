"""Placeholders as `{version}` in what people write in settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")


def filled(parts: Iterable[str], values: Mapping[str, object]) -> list[str]:
    """The parts with each known placeholder replaced once; other braces stay as they are."""
    return [_PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), part) for part in parts]
