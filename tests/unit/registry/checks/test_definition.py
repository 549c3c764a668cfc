from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.checks.definition import Alias, Grpc, Http, NotRun, Plan, Tcp, _Sent, plan_of
from milkrun.registry.checks.thresholds import Thresholds
from milkrun.registry.http.bodies import check_of, fold
from milkrun.registry.nouns import CheckSpec
from milkrun.registry.refusal import Refused


def plan(**sent):
    return plan_of(
        check_of(fold({"Interval": "10s", **sent}), default_id="c", default_name="c", service_id="s")
    )


def test_an_http_check():
    found = plan(
        HTTP="http://x",
        Method="PUT",
        Header={"X-A": ["1", "2"]},
        Body="b",
        TLSSkipVerify=True,
        tls_server_name="n",
        Timeout="3s",
        OutputMaxSize=7,
        SuccessBeforePassing=2,
        failures_before_warning=1,
        FailuresBeforeCritical=3,
    )
    assert found == Plan(
        Http(
            url="http://x",
            method="PUT",
            header={"X-A": ["1", "2"]},
            body="b",
            skip_verify=True,
            server_name="n",
            output_bytes=7,
        ),
        10.0,
        3.0,
        Thresholds(before_passing=2, before_warning=1, before_critical=3),
    )


def test_the_other_kinds():
    assert plan(TCP="a:1").look == Tcp("a:1")
    assert plan(AliasService="s", AliasNode="n", Interval=None).look == Alias("n", "s")
    assert plan(GRPC="a:1/s").look == Grpc(address="a:1/s")
    assert plan(GRPC="a:1", GRPCUseTLS=True, TLSSkipVerify=True, TLSServerName="n").look == Grpc(
        address="a:1", tls=True, skip_verify=True, server_name="n"
    )


def test_a_kind_that_nobody_knows_is_not_run():
    """It may stand in a snapshot that a later version took."""
    look = plan_of(CheckSpec(check_id="c", type="udp", probe={"udp": "a:1"})).look
    assert isinstance(look, NotRun)
    assert "does not run udp checks" in look.why


@pytest.mark.parametrize(
    ("sent", "interval_s", "timeout_s"),
    [
        ({"Interval": "10ms"}, 1.0, 10.0),
        ({"Interval": 5_000_000_000, "Timeout": "-1s"}, 5.0, 10.0),
        ({"Timeout": "10h"}, 10.0, 60.0),
    ],
)
def test_times_are_bounded(sent, interval_s, timeout_s):
    found = plan(HTTP="http://x", **sent)
    assert (found.interval_s, found.timeout_s) == (interval_s, timeout_s)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"HTTP": "http://x", "Header": {"a": "b"}}, "Request decode failed"),
        ({"HTTP": "http://x", "Method": 5}, "Request decode failed"),
        ({"HTTP": "http://x", "Timeout": "soon"}, "invalid duration"),
        ({"HTTP": "http://x", "OutputMaxSize": -1}, "MaxOutputMaxSize must be positive"),
        ({"HTTP": "http://x", "FailuresBeforeWarning": 3, "FailuresBeforeCritical": 2}, "cannot be higher"),
        ({"AliasService": "x", "TTL": "5s", "Interval": None}, "TTL must be not be set for Alias checks"),
        ({"Args": ["sh", "-c", "id"]}, "Scripts are disabled on this agent; "),
        ({"ScriptArgs": ["id"]}, "Scripts are disabled on this agent; "),
        ({"DockerContainerID": "c", "Args": ["id"]}, "Scripts are disabled on this agent; "),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(sent, why):
    with pytest.raises(Refused, match=why) as refused:
        plan(**sent)
    assert refused.value.status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [field.encode_name for field in msgspec.structs.fields(_Sent)]


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
    st.sampled_from(["http", "tcp", "alias", "grpc"]),
)
def test_any_stored_definition_is_a_plan_or_refused(probe, kind):
    try:
        found = plan_of(CheckSpec(check_id="c", type=kind, probe=probe))
    except Refused:
        return
    assert found.interval_s >= 1
    assert 0 < found.timeout_s <= 60
