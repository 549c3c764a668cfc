"""What only this registry answers, or answers otherwise than Consul 1.8 on purpose."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from milkrun.registry.engine import Engine
from milkrun.registry.http.app import App
from milkrun.registry.http.message import BODY_BYTES_AT_MOST, Reply, Request
from milkrun.registry.nouns import Node
from milkrun.registry.storage import Storage

OWN = Node(id="00000000-0000-0000-0000-000000000001", node="n1", address="127.0.0.1")
Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Ask]:
    with Storage(tmp_path) as storage:
        engine = Engine(storage, OWN)
        await engine.announce()
        app = App(engine)

        async def ask(method: str, target: str, body: bytes | dict[str, object] = b"") -> Reply:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            cap = app.cap(target.encode(), b"", True)
            return await app(Request(method, target.encode(), [], raw, size=len(raw), cap=cap))

        yield ask


async def test_metrics_for_prometheus(ask):
    await ask("PUT", "/v1/kv/a", b"1")
    reply = await ask("GET", "/v1/agent/metrics?format=prometheus")
    assert reply.content_type.startswith(b"text/plain; version=0.0.4")
    lines = reply.body.decode().splitlines()
    assert "consul_state_kv_entries 1.0" in lines
    assert 'milkrun_registry_checks{status="passing"} 1.0' in lines
    assert 'milkrun_registry_checks{status="critical"} 0.0' in lines


async def test_a_cluster_of_one_says_what_to_do_instead(ask):
    reply = await ask("PUT", "/v1/agent/join/10.0.0.1")
    assert reply.status == 400
    assert b"run Consul" in reply.body


async def test_its_own_node_may_be_forced_to_leave_and_stays(ask):
    assert (await ask("PUT", "/v1/agent/force-leave/n1")).status == 200
    assert b'"n1"' in (await ask("GET", "/v1/catalog/nodes")).body


async def test_services_of_the_catalog_by_filter(ask):
    for number, name in enumerate(("goat", "farmer")):
        await ask("PUT", "/v1/agent/service/register", {"Name": name, "Port": number, "Tags": [f"t{number}"]})
    found = await ask("GET", "/v1/catalog/services?filter=ServiceName+matches+%22^go%22")
    assert json.loads(found.body) == {"goat": ["t0"]}
    found = await ask("GET", "/v1/catalog/services?filter=t1+in+ServiceTags")
    assert json.loads(found.body) == {"farmer": ["t1"]}
    assert (await ask("GET", "/v1/catalog/services?filter=Nope+==+1")).status == 400


async def test_a_service_with_fields_that_nobody_knows_is_named_once_in_the_log(ask):
    body = {"Name": "goat", "Bogus": 1, "Kind": "connect-proxy", "Namespace": "", "tagged_addresses": None}
    with structlog.testing.capture_logs() as logs:
        await ask("PUT", "/v1/agent/service/register", body)
        await ask("PUT", "/v1/agent/service/register", body)
    told = [each for each in logs if "passed over" in each["event"]]
    assert [(each["service"], each["fields"]) for each in told] == [("goat", "Bogus, Kind")]


async def test_a_snapshot_goes_out_and_back_in(ask):
    await ask("PUT", "/v1/kv/a", b"1")
    file = (await ask("GET", "/v1/snapshot")).body
    await ask("PUT", "/v1/kv/a", b"2")
    assert (await ask("PUT", "/v1/snapshot", file)).status == 200
    assert (await ask("GET", "/v1/kv/a?raw")).body == b"1"


async def test_a_damaged_snapshot_changes_nothing(ask):
    await ask("PUT", "/v1/kv/a", b"1")
    file = (await ask("GET", "/v1/snapshot")).body
    await ask("PUT", "/v1/kv/a", b"2")
    reply = await ask("PUT", "/v1/snapshot", file[:-1])
    assert (reply.status, b"damaged" in reply.body) == (400, True)
    assert (await ask("GET", "/v1/kv/a?raw")).body == b"2"


async def test_a_snapshot_larger_than_other_bodies_is_taken(ask):
    for number in range(4):
        await ask("PUT", f"/v1/kv/{number}", random.Random(number).randbytes(400_000))
    file = (await ask("GET", "/v1/snapshot")).body
    assert len(file) > BODY_BYTES_AT_MOST
    await ask("DELETE", "/v1/kv/?recurse")
    assert (await ask("PUT", "/v1/snapshot", file)).status == 200
    assert len(json.loads((await ask("GET", "/v1/kv/?keys")).body)) == 4
