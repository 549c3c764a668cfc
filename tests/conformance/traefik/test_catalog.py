"""Traefik's consulCatalog provider routes from our catalog, by polling and by watching."""

from __future__ import annotations

import itertools

import pytest

_names = itertools.count()


@pytest.fixture(scope="module", params=["polling", "watching"])
def front(request, registry, traefik):
    watch = "true" if request.param == "watching" else "false"
    # Where it watches, a poll would hide that it had not heard.
    interval = "600s" if request.param == "watching" else "300ms"
    with traefik(
        "--providers.consulcatalog=true",
        f"--providers.consulcatalog.endpoint.address=127.0.0.1:{registry.port}",
        f"--providers.consulcatalog.watch={watch}",
        f"--providers.consulcatalog.refreshinterval={interval}",
        "--providers.consulcatalog.defaultrule=PathPrefix(`/{{ .Name }}/`)",
    ) as front:
        yield front


@pytest.fixture
def farm(registry, backend):
    return Farm(registry, backend, f"goat-{next(_names)}")


class Farm:
    """Instances of one service."""

    def __init__(self, registry, backend, service):
        self.registry, self.backend, self.service = registry, backend, service
        self.path = f"/{service}/"

    def add(self, name):
        body = {
            "ID": f"{self.service}-{name}",
            "Name": self.service,
            "Address": "127.0.0.1",
            "Port": self.backend(name).port,
            "Tags": ["version=1"],
            "Check": {"TTL": "600s", "Status": "passing"},
        }
        assert self.registry.put("/v1/agent/service/register", body).status == 200

    def remove(self, name):
        assert self.registry.put(f"/v1/agent/service/deregister/{self.service}-{name}").status == 200

    def report(self, name, verb):
        assert self.registry.put(f"/v1/agent/check/{verb}/service:{self.service}-{name}").status == 200

    def maintain(self, name, enable):
        path = f"/v1/agent/service/maintenance/{self.service}-{name}"
        assert self.registry.put(path, enable=enable, reason="test").status == 200


def test_instances_that_come_and_go(front, farm):
    farm.add("a")
    front.comes_to(farm.path, "a")
    farm.add("b")
    front.comes_to(farm.path, "a", "b")
    farm.add("c")
    farm.remove("a")
    front.comes_to(farm.path, "b", "c")
    farm.remove("b")
    farm.remove("c")
    front.comes_to(farm.path, "404")
    farm.add("d")
    front.comes_to(farm.path, "d")


def test_instances_that_turn_critical_warn_and_recover(front, farm):
    for name in ("a", "b", "c"):
        farm.add(name)
    front.comes_to(farm.path, "a", "b", "c")
    farm.report("a", "fail")
    front.comes_to(farm.path, "b", "c")
    farm.report("b", "warn")
    farm.report("c", "fail")
    front.comes_to(farm.path, "b")
    farm.report("a", "pass")
    front.comes_to(farm.path, "a", "b")


def test_instances_in_maintenance(front, farm):
    farm.add("a")
    farm.add("b")
    front.comes_to(farm.path, "a", "b")
    farm.maintain("a", "true")
    front.comes_to(farm.path, "b")
    farm.maintain("a", "false")
    front.comes_to(farm.path, "a", "b")


def test_services_do_not_mix(front, registry, backend):
    one, other = (Farm(registry, backend, f"goat-{next(_names)}") for _ in range(2))
    one.add("one")
    other.add("other")
    front.comes_to(one.path, "one")
    front.comes_to(other.path, "other")
    one.remove("one")
    front.comes_to(one.path, "404")
    front.comes_to(other.path, "other")
