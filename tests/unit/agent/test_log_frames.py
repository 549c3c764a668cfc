import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.units.log_frames import Unframed, after

STAMP = b"2026-11-20T20:04:32.621577303Z"


def frame(text: bytes, stamp: bytes = STAMP) -> bytes:
    body = stamp + b" " + text if stamp else text
    return b"\x01\0\0\0" + len(body).to_bytes(4, "big") + body


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.integers(1, 30)))
def test_the_text_is_the_same_in_blocks_of_any_size(texts, sizes):
    stream = b"".join(frame(text) for text in texts)
    frames, found = Unframed(), b""
    for size in sizes:
        found += frames.take(stream[:size])
        stream = stream[size:]
    found += frames.take(stream)
    assert found == b"".join(texts)
    assert frames.last == (STAMP.decode() if texts else "")


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data):
    with contextlib.suppress(ValueError):
        assert len(Unframed().take(data)) <= len(data)


@pytest.mark.parametrize("data", [b"HTTP/1.1", b"\x01\0\1\0\0\0\0\1x", b"\x01\0\0\0\xff\0\0\0"])
def test_what_is_no_frame_is_refused_at_once(data):
    with pytest.raises(ValueError, match="no frame"):
        Unframed().take(data)


def test_text_without_a_time_stays():
    assert Unframed().take(frame(b"milk", stamp=b"")) == b"milk"


@pytest.mark.parametrize(
    ("stamp", "next_one"),
    [
        ("", "0"),
        ("nonsense", "0"),
        ("2026-11-20T20:04:32.621577303Z", "1795205072.621577304"),
        ("2026-11-20T20:04:32.999999999Z", "1795205073.000000000"),
        ("2026-11-20T20:04:32.5Z", "1795205072.500000001"),
        ("2026-11-20T20:04:32Z", "1795205072.000000001"),
    ],
)
def test_the_next_line_is_after_the_last_one(stamp, next_one):
    assert after(stamp) == next_one
