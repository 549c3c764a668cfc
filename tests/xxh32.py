"""XXH32 from its specification, as an oracle: which slot a text has."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_P1, _P2, _P3, _P4, _P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _MASK


def _round(lane: int, word: int) -> int:
    return _turned((lane + word * _P2) & _MASK, 13) * _P1 & _MASK


def xxh32(data: bytes, seed: int) -> int:
    """The hash. Source: doc/xxhash_spec.md of xxHash."""
    at = 0
    if len(data) >= 16:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 16 <= len(data):
            for number in range(4):
                word = int.from_bytes(data[at + 4 * number : at + 4 * number + 4], "little")
                lanes[number] = _round(lanes[number], word)
            at += 16
        found = sum(_turned(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        found = seed + _P5
    found = (found + len(data)) & _MASK
    while at + 4 <= len(data):
        word = int.from_bytes(data[at : at + 4], "little")
        found = _turned((found + word * _P3) & _MASK, 17) * _P4 & _MASK
        at += 4
    for byte in data[at:]:
        found = _turned((found + byte * _P5) & _MASK, 11) * _P1 & _MASK
    found = (found ^ found >> 15) * _P2 & _MASK
    found = (found ^ found >> 13) * _P3 & _MASK
    return found ^ found >> 16
