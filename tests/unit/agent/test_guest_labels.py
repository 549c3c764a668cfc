import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.agent.guests.guest import name_of
from milkrun.agent.guests.labels import Offer, asks_to_end, offer
from milkrun.agent.units.docker_answers import Container
from milkrun.errors import InputRefused

HERE = "10.0.0.7"
EVERYWHERE = [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}]
LOOPBACK = [{"HostIp": "127.0.0.1", "HostPort": "9000"}]


def container(labels=None, env=(), ports=None, network="default", exposed=None) -> Container:
    answer = {
        "Id": "c0ffee", "Name": "/goat", "State": {"Running": True},
        "Config": {"Labels": labels, "Env": list(env), "ExposedPorts": exposed},
        "HostConfig": {"NetworkMode": network},
        "NetworkSettings": {"Ports": {"8080/tcp": EVERYWHERE} if ports is None else ports},
    }  # fmt: skip
    return msgspec.json.decode(msgspec.json.encode(answer), type=Container)


def milkrun(**values: str) -> dict[str, str]:
    return {f"milkrun.{name}": value for name, value in values.items()}


def test_milkruns_labels():
    labels = milkrun(service="goat", version="0.0.1+b", port="8080", health="/health")
    found = offer(
        container(labels, ports={"8080/tcp": LOOPBACK, "9090/tcp": EVERYWHERE, "53/udp": None}), HERE
    )
    assert found == Offer(service="goat", version="0.0.1+b", address="127.0.0.1", port=9000, health="/health")
    assert name_of(found, "meadow") == "goat-0.0.1_b-meadow-9000"


@pytest.mark.parametrize(
    ("labels", "env"),
    [
        ({}, ["SERVICE_NAME=goat", "SERVICE_TAGS=version=0.0.2,brown", "SERVICE_CHECK_HTTP=/health"]),
        (
            {"SERVICE_8080_NAME": "goat", "SERVICE_8080_TAGS": "brown,version=0.0.2"},
            ["SERVICE_CHECK_HTTP=/health"],
        ),
        ({"SERVICE_NAME": "goat", "SERVICE_TAGS": "brown", **milkrun(version="0.0.2", health="/health")}, []),
    ],
)
def test_registrators_words(labels, env):
    assert offer(container(labels, env), HERE) == Offer(
        service="goat", version="0.0.2", address=HERE, port=32768, health="/health", tags=("brown",)
    )


def test_the_hosts_network_needs_no_published_port():
    exposed = {"8080/tcp": {}, "53/udp": {}}
    labels = milkrun(service="goat")
    assert offer(container(labels, network="host", ports={}, exposed=exposed), HERE).port == 8080
    named = offer(container(labels | milkrun(port="9090"), network="host", ports={}, exposed=exposed), HERE)
    assert (named.address, named.port, named.version, named.health) == (HERE, 9090, "unversioned", "")


@pytest.mark.parametrize(
    ("labels", "env"),
    [
        (None, []),
        ({}, ["PATH=/bin", "milkrun.service=goat"]),
        ({"SERVICE_NAME": "goat", "SERVICE_IGNORE": "true"}, []),
        ({**milkrun(service="goat"), "milkrun.instance": "goat-1"}, []),
    ],
)
def test_who_is_no_guest(labels, env):
    assert offer(container(labels, env), HERE) is None


@pytest.mark.parametrize(
    ("labels", "ports", "reason"),
    [
        (milkrun(service="Goat"), None, "'Goat' is not a service name"),
        (milkrun(service="milkrun-agent"), None, "is a name of milkrun's own parts"),
        (milkrun(service="goat", version="a b"), None, "'a b' is not a version"),
        (milkrun(service="goat", port="http"), None, "'http' is not a port"),
        (milkrun(service="goat", port="80"), None, "its port 80 is not published"),
        (milkrun(service="goat", port="53"), {"53/tcp": None}, "its port 53 is not published"),
        (milkrun(service="goat"), {}, "it has no port that is published"),
        (milkrun(service="goat"), {"1/tcp": LOOPBACK, "2/tcp": LOOPBACK}, "it has several ports"),
        (milkrun(service="goat", health="health"), None, "its health 'health' is not a path"),
        ({"SERVICE_NAME": "goat", "SERVICE_TAGS": "a b"}, None, "its tag 'a b' is no plain text"),
    ],
)
def test_what_cannot_be_used_is_named(labels, ports, reason):
    with pytest.raises(InputRefused, match=reason):
        offer(container(labels, ports=ports), HERE)


@given(st.dictionaries(st.sampled_from(["milkrun.service", "milkrun.version", "milkrun.port", "milkrun.health",
                                        "SERVICE_NAME", "SERVICE_TAGS", "SERVICE_8080_NAME", "SERVICE_99999_NAME"]),
                       st.text(max_size=20)))  # fmt: skip
def test_any_labels_are_an_offer_or_none_or_refused(labels):
    try:
        found = offer(container(labels), HERE)
    except InputRefused:
        return
    if found:
        assert 1 <= found.port <= 65535
        assert name_of(found, "meadow").startswith(f"{found.service}-")
        assert found.health == "" or found.health.startswith("/")


@pytest.mark.parametrize(
    ("signal", "stop_signal", "ends"),
    [
        ("15", "", True), ("SIGTERM", "", True), ("2", "", True), ("9", "", True), ("3", "SIGQUIT", True),
        ("10", "SIGUSR1", True), ("10", "10", True), ("10", "", False), ("1", "", False), ("28", "", False),
        ("", "", False),
    ],
)  # fmt: skip
def test_which_signals_ask_to_end(signal, stop_signal, ends):
    assert asks_to_end(signal, stop_signal) is ends
