from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.http.bodies import ServiceBody, checks_of, decode, service_of
from milkrun.registry.http.txn import _operations
from milkrun.registry.refusal import Refused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Name",
                    "name",
                    "Check",
                    "checks",
                    "TTL",
                    "Weights",
                    "Meta",
                    "Tags",
                    "Port",
                    "KV",
                    "Value",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def registered(raw):
    body = decode(raw, ServiceBody)
    service = service_of(body, body.name or "x")
    return service, checks_of(body, service)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_understood_or_refused(raw):
    for read in (registered, _operations):
        with contextlib.suppress(Refused):
            read(raw)


def test_deeply_nested_json_is_refused():
    with pytest.raises(Refused, match="Request decode failed"):
        decode(b"[" * 100_000, ServiceBody)


def test_case_underscores_and_nulls_do_not_count_but_data_keeps_its_names():
    service, (check,) = registered(
        b'{"NAME":"goat","enable_tag_override":true,"tags":null,"Meta":{"A_b":"C"},"port":7,'
        b'"check":{"ttl":"15.0s","deregister_critical_service_after":"1s"},"Unknown":[1]}'
    )
    assert (service.service, service.enable_tag_override, service.meta, service.tags) == (
        "goat",
        True,
        {"A_b": "C"},
        [],
    )
    assert (check.check_id, check.ttl_s, check.deregister_after_s) == ("service:goat", 15.0, 60.0)


def test_durations_may_be_numbers_of_nanoseconds():
    _, (check,) = registered(b'{"Name":"goat","Check":{"TTL":15000000000}}')
    assert check.ttl_s == 15


def test_scripts_never_come_over_the_api():
    for field in ('"Args":["true"]', '"ScriptArgs":["true"]', '"DockerContainerID":"x"'):
        with pytest.raises(Refused, match="Scripts are disabled"):
            registered(b'{"Name":"x","Check":{%s,"Interval":"10s"}}' % field.encode())
