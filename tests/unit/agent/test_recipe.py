import msgspec
import pytest

from milkrun.agent.units import docker_answers, recipe
from milkrun.agent.units.container import outcome
from milkrun.agent.units.program import Place
from milkrun.settings.service import ServiceSettings
from milkrun.settings.unit import DockerSettings

PLACE = Place(
    service="goat", version="0.0.1+b", instance="goat-0.0.1_b-meadow-8101", address="10.0.0.7", port=8101
)
SECRETS = {"KEY": "/keys/goat"}


def made(place=PLACE, registry="http://127.0.0.1:8500", env=None, **docker):
    settings = ServiceSettings(docker=DockerSettings(image="goat:{version}", **docker), env=env or {})
    return recipe.body(settings, place, SECRETS, registry=registry, state="/state")


def test_a_container_behind_a_bridge():
    body = made(
        port=8080, labels={"farm": "dairy"}, volumes=["/srv/hay:/hay"], memory_mb=64, init=True,
        command=["/goat", "--port={port}", "{python}"], env={"BREED": "saanen", "MILKRUN_PORT": "1"},
    )  # fmt: skip
    assert body["Image"] == "goat:0.0.1_b"
    assert body["Cmd"] == ["/goat", "--port=8080", "{python}"]
    assert body["Labels"] == {
        "farm": "dairy",
        "milkrun.instance": "goat-0.0.1_b-meadow-8101",
        "milkrun.state": "/state",
    }
    assert body["Env"] == [
        "PGAPPNAME=goat/0.0.1+b/goat-0.0.1_b-meadow-8101",
        "BREED=saanen", "MILKRUN_PORT=8080", "KEY_FILE=/run/secrets/KEY", "MILKRUN_SERVICE=goat",
        "MILKRUN_VERSION=0.0.1+b", "MILKRUN_INSTANCE=goat-0.0.1_b-meadow-8101", "MILKRUN_ADDRESS=0.0.0.0",
    ]  # fmt: skip
    host = body["HostConfig"]
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "10.0.0.7", "HostPort": "8101"}]}
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/srv/hay", "Target": "/hay", "ReadOnly": True},
        {"Type": "bind", "Source": "/keys/goat", "Target": "/run/secrets/KEY", "ReadOnly": True},
    ]
    assert (host["Memory"], host["MemorySwap"], host["Init"]) == (64 << 20, 64 << 20, True)


def test_a_container_in_the_hosts_network_listens_where_the_instance_is():
    body = made(network="host")
    assert {"MILKRUN_ADDRESS=10.0.0.7", "MILKRUN_PORT=8101", "CONSUL_HTTP_ADDR=http://127.0.0.1:8500"} < {
        *body["Env"]
    }
    assert "Cmd" not in body
    assert "PortBindings" not in body["HostConfig"]
    assert "Memory" not in body["HostConfig"]


@pytest.mark.parametrize(
    ("registry", "seen"),
    [("http://10.0.0.1:8500", True), ("http://localhost:8500", False), ("http://[::1]:8500", False)],
)
def test_behind_a_bridge_it_is_told_of_a_registry_that_it_can_reach(registry, seen):
    assert (f"CONSUL_HTTP_ADDR={registry}" in made(registry=registry)["Env"]) is seen


def test_behind_a_bridge_it_listens_on_everything_of_its_own():
    seen = made(place=msgspec.structs.replace(PLACE, address="fd00::7"))
    assert {"MILKRUN_ADDRESS=::", "MILKRUN_PORT=8101"} < {*seen["Env"]}


def test_nothing_of_the_host_is_given_that_was_not_named(monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hay-and-oats")
    body = made()
    assert "hay-and-oats" not in repr(body)
    assert not {"Privileged", "CapAdd", "Devices", "Binds"} & body["HostConfig"].keys()
    assert body["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"ExitCode": 3}, "container exited with status 3"),
        (
            {"ExitCode": 137, "OOMKilled": True},
            "container killed: it used more memory than it may (status 137)",
        ),
        ({"ExitCode": 127, "Error": "no goat"}, "container exited with status 127: no goat"),
    ],
)
def test_how_it_ended(state, text):
    assert outcome(msgspec.convert(state, docker_answers.State)) == text
