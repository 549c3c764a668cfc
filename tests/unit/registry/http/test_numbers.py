from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milkrun.registry.http.numbers import parsed

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def fits(value):
    if isinstance(value, dict | list):
        return all(map(fits, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@given(JSON)
def test_what_is_read_can_be_kept_and_the_rest_is_refused(value):
    raw = json.dumps(value).encode()
    if fits(value):
        assert parsed(raw) == value
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(parsed(raw))) == value
    else:
        with pytest.raises(msgspec.DecodeError):
            parsed(raw)


@given(st.binary())
@example(b'"\x80"')
def test_any_bytes_are_json_or_refused(raw):
    try:
        parsed(raw)
    except (msgspec.DecodeError, RecursionError):
        return
    json.loads(raw)
