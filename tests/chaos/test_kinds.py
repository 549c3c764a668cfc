"""What the clients of every kind read and write."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st
from kinds import frames
from kinds_app import CLOSE, TEXT, frame, read_frame

HTTP2_FRAMES = st.lists(
    st.tuples(st.binary(min_size=6, max_size=6), st.binary(max_size=300)).map(
        lambda parts: len(parts[1]).to_bytes(3) + parts[0] + parts[1]
    ),
    max_size=6,
)


@given(HTTP2_FRAMES, st.lists(st.integers(0, 2_000)))
def test_however_the_bytes_come_theframes_are_those_that_were_sent(sent: list[bytes], cuts: list[int]):
    data = b"".join(sent)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found: list[bytes] = []
    rest = b""
    for start, end in itertools.pairwise(places):
        *whole, rest = frames(rest + data[start:end])
        found += whole
    assert (found, rest) == (sent, b"")


@given(
    st.sampled_from([TEXT, CLOSE]),
    st.binary(max_size=125),
    st.one_of(st.just(b""), st.binary(min_size=4, max_size=4)),
)
async def test_a_message_is_read_as_it_was_said(kind: int, said: bytes, mask: bytes):
    reader = asyncio.StreamReader()
    reader.feed_data(frame(kind, said, mask))
    reader.feed_eof()
    assert await read_frame(reader) == (kind, said)
    assert await reader.read() == b""
