"""What an instance may be made of, and what is refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.settings import service
from milkrun.settings.unit import Volume, volume, waited_for

WHOLE = """env = {MILK = "fat"}
secrets = {DATABASE = "/etc/milk/database", KEY = "keys/goat"}
wait_for = ["tcp://127.0.0.1:5432", "tcp://[::1]:6379", "tcp://db.farm:5432"]

[docker]
image = "registry.farm:5000/animals/goat:{version}"
command = ["/bin/goat", "--port", "{port}"]
network = "bridge"
port = 8080
labels = {"farm.animal" = "goat"}
volumes = ["/srv/hay:/hay", "/srv/milk:/milk:rw"]
memory_mb = 64
init = true
"""
DOCKER = '[docker]\nimage = "goat:{version}"\n'
PROCESS = 'command = ["goat"]\n'


def load(text: str):
    return service.load(text.encode(), "services/goat.toml")


def test_a_container():
    settings = load(WHOLE)
    assert settings.command == []
    assert settings.docker.image == "registry.farm:5000/animals/goat:{version}"
    assert [volume(text) for text in settings.docker.volumes] == [
        Volume("/srv/hay", "/hay", read_only=True),
        Volume("/srv/milk", "/milk", read_only=False),
    ]
    assert [waited_for(text) for text in settings.wait_for] == [
        ("127.0.0.1", 5432),
        ("::1", 6379),
        ("db.farm", 5432),
    ]


def test_the_least_that_a_container_needs():
    docker = load(DOCKER).docker
    assert (docker.network, docker.port, docker.volumes, docker.init) == ("bridge", 0, [], False)


REFUSED = [
    ("", 0, "command: has to name a program, as a list with its arguments; or [docker] an image"),
    (PROCESS + DOCKER, 1, "command: stands beside [docker]"),
    ("[docker]\nport = 80", 1, "docker.image: is missing"),
    (DOCKER + "imgae = 1", 3, "docker.imgae: unknown key (did you mean `image`?)"),
    ('[docker]\nimage = "goat image"', 2, "docker.image: is not the name of an image"),
    ('[docker]\nimage = "goat:{versoin}"', 2, "docker.image: is not the name of an image"),
    ('[docker]\nimage = "-goat"', 2, "docker.image: is not the name of an image"),
    (DOCKER + 'command = ["x", "\\u0000"]', 3, "docker.command[1]: an argument cannot have a NUL"),
    (DOCKER + 'command = [" "]', 3, "docker.command[0]: the program's name is empty"),
    (DOCKER + 'network = "none"', 3, "docker.network: invalid enum value 'none'"),
    (DOCKER + "port = 70000", 3, "docker.port: has to be a port, or 0"),
    (DOCKER + 'network = "host"\nport = 80', 4, "docker.port: is for the network `bridge`"),
    (DOCKER + '[docker.labels]\n"milkrun.state" = "x"', 4, "labels below `milkrun.` are the agent's own"),
    (DOCKER + '[docker.labels]\n"a b" = "x"', 4, "is not the name of a label"),
    (DOCKER + 'volumes = ["hay:/hay"]', 3, "docker.volumes[0]: 'hay:/hay' is not a volume"),
    (DOCKER + 'volumes = ["/hay:/hay:rx"]', 3, "docker.volumes[0]"),
    (DOCKER + 'volumes = ["/hay/../etc:/hay"]', 3, "docker.volumes[0]"),
    (DOCKER + "memory_mb = 5", 3, "docker.memory_mb: has to be 0 (no limit) or 6 to"),
    (PROCESS + 'wait_for = ["127.0.0.1:5432"]', 2, "wait_for[0]: '127.0.0.1:5432' cannot be waited for"),
    (PROCESS + 'wait_for = ["tcp://db"]', 2, "wait_for[0]"),
    (PROCESS + 'wait_for = ["tcp://db:99999"]', 2, "wait_for[0]"),
    (PROCESS + 'wait_for = ["tcp://me@db:1"]', 2, "wait_for[0]"),
    (PROCESS + 'wait_for = ["http://db:80"]', 2, "wait_for[0]"),
    (PROCESS + '[secrets]\n"A B" = "x"', 3, "secrets.A B: is not the name of an environment variable"),
    (PROCESS + '[secrets]\nKEY = ""', 3, "secrets.KEY: is not the path of a file"),
    (PROCESS + 'env = {KEY_FILE = "x"}\n[secrets]\nKEY = "y"', 4, "secrets.KEY: env has a KEY_FILE already"),
    (PROCESS + '[stop]\nsignal = "KILL"', 3, "stop.signal: invalid enum value 'KILL'"),
]


@pytest.mark.parametrize(("text", "line", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_cannot_be_started_is_refused_with_its_line(text, line, reason):
    with pytest.raises(InputRefused) as refused:
        load(text)
    assert refused.value.line == line
    assert reason in refused.value.reason


@given(st.text(max_size=40))
def test_what_is_waited_for_is_a_host_and_a_port_or_refused(text):
    try:
        host, port = waited_for(f"tcp://{text}")
    except InputRefused:
        return
    assert 1 <= port <= 65535
    assert text.lower() in (f"{host}:{port}", f"[{host}]:{port}")


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_volume_is_two_absolute_paths_or_refused(source, target):
    try:
        found = volume(f"{source}:{target}")
    except InputRefused:
        return
    assert found.source.startswith("/")
    assert found.target.startswith("/")
    assert ".." not in [*found.source.split("/"), *found.target.split("/")]
