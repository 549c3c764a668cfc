"""Traefik's Consul KV provider takes weighted services from our keys, and follows each transaction."""

from __future__ import annotations

import base64

import pytest
from conformance.registries import eventually

REQUESTS = 1_000


@pytest.fixture(scope="module")
def front(registry, traefik):
    with traefik(
        "--providers.consul=true",
        f"--providers.consul.endpoints=127.0.0.1:{registry.port}",
        "--providers.consul.rootkey=traefik",
    ) as front:
        yield front


def write(registry, entries):
    """All the keys change in one transaction."""
    operations = [
        {
            "KV": {
                "Verb": "set",
                "Key": f"traefik/http/{key}",
                "Value": base64.b64encode(value.encode()).decode(),
            }
        }
        for key, value in entries.items()
    ]
    assert registry.put("/v1/txn", operations).status == 200


def routed(versions):
    """The keys of one router at /goat to weighted versions."""
    found = {"routers/goat/rule": "PathPrefix(`/goat`)", "routers/goat/service": "goat"}
    for place, backend in enumerate(versions):
        found |= {
            f"services/{backend.name}/loadbalancer/servers/0/url": f"http://127.0.0.1:{backend.port}",
            f"services/goat/weighted/services/{place}/name": backend.name,
        }
    return found


def weights(*given):
    return {f"services/goat/weighted/services/{place}/weight": str(each) for place, each in enumerate(given)}


def comes_to_share(front, **shares):
    """Of so many requests each version answers exactly its share, give or take one: Traefik takes turns."""
    span = 100
    wanted = {name: share for name, share in shares.items() if share}

    def near():
        found = front.count("/goat", span)
        return set(found) == set(wanted) and all(
            abs(found[name] - share) <= 1 for name, share in wanted.items()
        )

    eventually(near, f"{shares}")
    found = front.count("/goat", REQUESTS)
    print(f"of {REQUESTS}: {dict(found)}")
    assert set(found) == set(wanted)
    assert all(abs(found[name] - share * REQUESTS // 100) <= 1 for name, share in wanted.items()), found


def test_shares_are_exact_and_follow_each_change(registry, front, backend):
    one, two = backend("0-0-1"), backend("0-0-2")
    write(registry, routed([one, two]) | weights(80, 20))
    comes_to_share(front, **{"0-0-1": 80, "0-0-2": 20})
    write(registry, weights(50, 50))
    comes_to_share(front, **{"0-0-1": 50, "0-0-2": 50})
    write(registry, weights(1, 99))
    comes_to_share(front, **{"0-0-1": 1, "0-0-2": 99})
    write(registry, weights(0, 1))
    comes_to_share(front, **{"0-0-2": 100})
