"""Good and bad requests for every operation, made from docs/openapi.json: each is answered, and as described."""

from __future__ import annotations

import os

import pytest
from bad_input.description import harmless
from bad_input.known_errors import is_known
from bad_input.remains import after_a_restart, remains
from hypothesis import HealthCheck, Phase, given, seed, settings

from milkrun.registry.duration import seconds

EXAMPLES = 300 if os.environ.get("MILKRUN_SOAK") else 12
WAITS_S_AT_MOST = 0.05
HEALTH = "/v1/agent/health/service/"
"""Here 503 says how a service is."""

QUICK = settings(
    max_examples=EXAMPLES,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def waits_briefly(query):
    """The query, if it does not ask to wait for minutes: that is no hang."""
    try:
        short = 0 < seconds(str(query["wait"])) <= WAITS_S_AT_MOST
    except (KeyError, ValueError):
        short = False
    return query if short or not {"index", "hash"} & query.keys() else {**query, "wait": "1ms"}


@pytest.mark.parametrize("kind", ["good", "bad"])
@pytest.mark.parametrize("operation", harmless(), ids=" ".join)
def test_every_request_is_answered_as_described(registry, described, send, operation, kind):
    from schemathesis import GenerationMode

    method, path = operation
    mode = GenerationMode.POSITIVE if kind == "good" else GenerationMode.NEGATIVE
    cases = described[path][method].as_strategy(generation_mode=mode)

    @seed(20261120)
    @QUICK
    @given(case=cases)
    def each(case):
        case.query = waits_briefly(case.query or {})
        reply = send(case)
        if reply.status_code >= 500 and not (path.startswith(HEALTH) and reply.status_code == 503):
            assert is_known(reply.text), reply.text

    each()
    assert registry.get("/v1/status/leader").status == 200


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"]
)
def test_every_method_on_every_path_is_answered(registry, method):
    for path in sorted({path for _, path in harmless()}):
        reply = registry.ask(method, path.replace("{", "").replace("}", ""))
        assert reply.status < 500 or is_known(reply.text) or method == "HEAD", (method, path, reply.text)


def test_what_all_that_left_is_the_same_after_a_restart(registry, folder):
    assert registry.ask("PUT", "/v1/kv/kept", b"1").status == 200  # the requests may have deleted all others
    before = remains(registry)
    assert before["keys"]
    assert after_a_restart(registry, folder) == before
