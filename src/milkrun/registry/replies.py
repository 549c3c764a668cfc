"""Answers that are encoded once and sent many times, until what they show changes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

TOPICS_AT_MOST = 4096
VARIANTS_AT_MOST = 64


class Replies:
    """Encoded answers by topic and variant."""

    def __init__(self) -> None:
        self._encoded: dict[str, dict[Hashable, bytes]] = {}

    def get(self, topic: str, variant: Hashable, make: Callable[[], bytes]) -> bytes:
        """The encoded answer, made when it is not there."""
        variants = self._encoded.get(topic)
        if variants is None:
            if len(self._encoded) >= TOPICS_AT_MOST:
                self._encoded.clear()
            variants = self._encoded[topic] = {}
        body = variants.get(variant)
        if body is None:
            if len(variants) >= VARIANTS_AT_MOST:
                variants.clear()
            body = variants[variant] = make()
        return body

    def forget(self, touched: Iterable[str]) -> None:
        """What shows any of these topics is encoded anew when it is asked for."""
        for topic in touched:
            self._encoded.pop(topic, None)
