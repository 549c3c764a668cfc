"""Answer after answer read anew or from what is known: the same instances."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.consul import catalog, wire
from milkrun.consul.client import decode
from milkrun.consul.health import HealthReader
from milkrun.errors import RegistryRefused

rows = st.fixed_dictionaries(
    {
        "Node": st.fixed_dictionaries(
            {"Node": st.just("n"), "Address": st.sampled_from(["10.0.0.1", "10.0.0.2"])}
        ),
        "Service": st.fixed_dictionaries(
            {"ID": st.sampled_from("abc"), "Service": st.just("goat"), "Port": st.integers(1, 3)}
        ),
        "Checks": st.lists(
            st.fixed_dictionaries(
                {
                    "CheckID": st.just("c"),
                    "Status": st.sampled_from(["passing", "critical"]),
                    "Output": st.text(),
                }
            ),
            max_size=2,
        ),
    }
)


@given(st.lists(st.lists(rows, max_size=4), max_size=4))
def test_each_answer_is_read_as_if_it_were_the_first(answers):
    reader = HealthReader()
    for answer in answers:
        body = msgspec.json.encode(answer)

        assert reader.read(body) == catalog.instances(decode(body, list[wire.HealthEntry]))


def test_what_did_not_change_is_the_same_object_and_what_did_is_not():
    row = {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "a", "Service": "goat", "Port": 1}}
    other = {
        "Node": {"Node": "n", "Address": "10.0.0.1"},
        "Service": {"ID": "b", "Service": "goat", "Port": 1},
    }
    moved = {
        "Node": {"Node": "n", "Address": "10.0.0.1"},
        "Service": {"ID": "b", "Service": "goat", "Port": 2},
    }
    reader = HealthReader()

    before = reader.read(msgspec.json.encode([row, other]))
    after = reader.read(msgspec.json.encode([row, moved]))

    assert after[0] is before[0]
    assert (before[1].port, after[1].port) == (1, 2)


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[1]", b"[{}]", b'[{"Node":', b"[" * 2000])
def test_another_shape_is_refused_and_changes_nothing(body):
    row = {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": "a", "Service": "goat", "Port": 1}}
    reader = HealthReader()
    (known,) = reader.read(msgspec.json.encode([row]))

    with pytest.raises(RegistryRefused):
        reader.read(body)

    assert reader.read(msgspec.json.encode([row, row]))[0] is known
