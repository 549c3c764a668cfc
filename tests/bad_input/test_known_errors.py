"""Every answer of 500 that is let pass is one that a real Consul gives, in the same words."""

from __future__ import annotations

import json
import re

import pytest
import requests
from bad_input.known_errors import KNOWN, SECRET, is_known
from conformance.registries import NODE, consul

MASTER = "0f4cb1a6-0000-4000-8000-00000000beef"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    with consul(tmp_path_factory.mktemp("consul")) as server:
        yield server


@pytest.fixture(scope="module")
def theirs_guarded(tmp_path_factory):
    """A Consul with tokens."""
    acl = {"enabled": True, "tokens": {"master": MASTER}}
    with consul(tmp_path_factory.mktemp("consul"), primary_datacenter="dc1", acl=acl) as server:
        server.token = MASTER
        yield server


@pytest.fixture
def both(request, known):
    """The two registries to ask: those with tokens for what is about tokens."""
    names = ("guarded", "theirs_guarded") if known.path.startswith("/v1/acl/") else ("registry", "theirs")
    return [request.getfixturevalue(name) for name in names]


def ask(server, known):
    body = (
        known.body
        if isinstance(known.body, str)
        else json.dumps(known.body)
        if known.body is not None
        else ""
    )
    return requests.request(
        known.method,
        f"http://127.0.0.1:{server.port}{known.path}",
        data=body,
        headers={"X-Consul-Token": getattr(server, "token", "")},
        timeout=20,
    )


@pytest.fixture
def ground(both, known):
    """What some of them need: a critical check, and a token whose secret another one wants."""
    if known.body == {"SecretID": SECRET}:
        for server in both:
            assert ask(server, known).status_code == 200
    if known.body == {"Checks": ["ill"]}:
        check = {"Node": NODE, "CheckID": "ill", "Name": "ill", "Status": "critical"}
        for server in both:
            body = {"Node": NODE, "Address": "127.0.0.1", "SkipNodeUpdate": True, "Check": check}
            assert server.put("/v1/catalog/register", body).status == 200


@pytest.mark.needs("consul")
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.text[:40])
def test_consul_says_the_same(ground, both, known):
    ours, wanted = (ask(server, known) for server in both)
    assert (wanted.status_code, ours.status_code) == (500, 500), (wanted.text, ours.text)
    assert re.fullmatch(known.theirs or known.text, wanted.text.strip(), re.DOTALL), wanted.text
    assert re.fullmatch(known.text, ours.text.strip(), re.DOTALL), ours.text


def test_a_mistake_of_the_registrys_is_none_of_them():
    assert not is_known("the registry made a mistake; its log says which")
