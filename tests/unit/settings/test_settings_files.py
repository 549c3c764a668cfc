from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused, NotFound
from milkrun.settings import environment, service
from milkrun.settings.folder import Folder
from milkrun.templates import create, names

ENVIRONMENT = b"""name = "farm"

[registry]
http = "127.0.0.1:8500"

[git]
branch = "main"

[agent]
address = "10.0.0.7"
ports = [8101, 8199]

[routers.lb-goat]
service = "goat"
listen = "0.0.0.0:8202"
stats = "127.0.0.1:8404"

[routers.lb-farmer]
service = "farmer"
listen = "[::]:8212"
stats = "127.0.0.1:8414"
"""

SERVICE = b"""command = ["{python}", "apps/goat.py"]
needs = ["cow"]
hosts = ["stable-1"]

[env]
MILK = "fat"

[health]
path = "/health"
interval_s = 0.5
timeout_s = 1
rise = 2
fall = 3

[stop]
drain_limit_s = 60
stop_limit_s = 10.0
"""


def change(data: bytes, old: str, new: str) -> bytes:
    assert old.encode() in data
    return data.replace(old.encode(), new.encode(), 1)


def test_the_environment_is_read():
    settings = environment.load(ENVIRONMENT, "milkrun.toml")
    assert settings.agent.ports == (8101, 8199)
    assert settings.routers["lb-farmer"].listen == "[::]:8212"


def test_a_service_is_read():
    settings = service.load(SERVICE, "services/goat.toml")
    assert settings.command == ["{python}", "apps/goat.py"]
    assert settings.health.timeout_s == 1.0
    assert settings.env == {"MILK": "fat"}


@pytest.mark.parametrize("template", names())
def test_every_template_is_an_environment(template, tmp_path):
    create(tmp_path / "farm", template)
    folder = Folder.find(tmp_path / "farm" / "deploy")
    assert folder.load_environment().name
    for file in (tmp_path / "farm" / "services").glob("*.toml"):
        service.load(file.read_bytes(), f"services/{file.name}")


BAD_ENVIRONMENTS = [
    ('name = "farm"', "", 0, "name: is missing"),
    ('name = "farm"', "name = 7", 1, "name: expected `str`, got `int`"),
    ('name = "farm"', 'name = "Farm"', 1, "name: 'Farm' is not a service name"),
    ('name = "farm"', 'name = "farm', 1, "not TOML"),
    ('name = "farm"', 'name = "farm"\nname = "farm"', 2, "not TOML"),
    ('name = "farm"', 'name = "farm"\nrotuers = 1', 2, "unknown key (did you mean `routers`?)"),
    ('name = "farm"', 'name = "farm"\n"a\\nb" = 1', 2, "unknown key"),
    ("[registry]", "[registy]", 3, "registy: unknown key (did you mean `registry`?)"),
    ("[registry]", "[[registry]]", 3, "registry: expected `object`, got `array`"),
    ('http = "127.0.0.1:8500"', 'http = "8500"', 4, "registry.http: '8500' is not HOST:PORT"),
    ('http = "127.0.0.1:8500"', 'http = "127.0.0.1:0"', 4, "registry.http: '127.0.0.1:0' has no port"),
    ('http = "127.0.0.1:8500"', 'dns = "8600"', 4, "registry.dns: '8600' is not HOST:PORT"),
    ('http = "127.0.0.1:8500"', 'dns = "127.0.0.1:8500"', 4, "is the address of registry.http already"),
    (
        'http = "127.0.0.1:8500"',
        "srv_weight_scale = 0",
        4,
        "a number from 1 to 65535; 256 is right for HAProxy",
    ),
    (
        'http = "127.0.0.1:8500"',
        'check_allow = ["10.0.0.0/8", "10.1.2.3/16"]',
        4,
        "registry.check_allow[1]: `10.1.2.3/16`: the address is not where that network begins",
    ),
    (
        'http = "127.0.0.1:8500"',
        'check_allow = [\n"10.0.0.0/8",\n"stable-2"]',
        6,
        "registry.check_allow[1]: `stable-2` is not a network",
    ),
    (
        'http = "127.0.0.1:8500"',
        'check_allow = ["169.254.169.254"]',
        4,
        "registry.check_allow[0]: `169.254.169.254`: a link-local address, which checks never reach",
    ),
    (
        'http = "127.0.0.1:8500"',
        'check_allow = "10.0.0.0/8"',
        4,
        "registry.check_allow: expected `array`, got `str`",
    ),
    (
        'http = "127.0.0.1:8500"',
        'tls_cert = "a.pem"',
        4,
        "registry.tls_cert: TLS takes a certificate and its key",
    ),
    (
        'http = "127.0.0.1:8500"',
        'tls_key = "a.key"',
        4,
        "registry.tls_key: TLS takes a certificate and its key",
    ),
    (
        'http = "127.0.0.1:8500"',
        'tls_ca = "a.pem"',
        4,
        "registry.tls_ca: TLS takes a certificate and its key",
    ),
    ('http = "127.0.0.1:8500"', 'tls_key = "a\\nb"', 4, "registry.tls_key: is not the name of a file"),
    (
        'http = "127.0.0.1:8500"',
        'allow_host = ["x", "*.y"]',
        4,
        "registry.allow_host[1]: '*.y' is not a host's name",
    ),
    (
        'http = "127.0.0.1:8500"',
        'htpp = "127.0.0.1:8500"',
        4,
        "registry.htpp: unknown key (did you mean `http`?)",
    ),
    (
        'branch = "main"',
        'branch = "--upload-pack=x"',
        7,
        "git.branch: '--upload-pack=x' is not a branch's name",
    ),
    ('branch = "main"', 'branch = "a..b"', 7, "is not a branch's name"),
    ('address = "10.0.0.7"', 'address = "stable"', 10, "agent.address: 'stable' is not an IP address"),
    ('address = "10.0.0.7"', 'address = "0.0.0.0"', 10, "agent.address: 0.0.0.0 is not an address"),
    ("[8101, 8199]", "[8101]", 11, "agent.ports: expected `array` of length 2"),
    ("[8101, 8199]", '[8101, "x"]', 11, "agent.ports: expected `int`, got `str`"),
    ("[8101, 8199]", "[8199, 8101]", 11, "agent.ports: 8199 to 8101 is not a range"),
    ("[8101, 8199]", "[0, 8101]", 11, "agent.ports: 0 to 8101"),
    ("[8101, 8199]", "[8101, 65536]", 11, "agent.ports: 8101 to 65536"),
    ("[routers.lb-goat]", '[routers."lb goat"]', 13, "routers.lb goat: 'lb goat' is not a service name"),
    ('service = "goat"', 'service = "Goat"', 14, "routers.lb-goat.service: 'Goat'"),
    ('service = "goat"', "", 13, "routers.lb-goat: needs exactly one of"),
    ('listen = "0.0.0.0:8202"', 'lisen = "0.0.0.0:8202"', 15, "(did you mean `listen`?)"),
    ('listen = "[::]:8212"', "listen = 8212", 20, "routers.lb-farmer.listen: expected `str`, got `int`"),
    ('listen = "[::]:8212"', 'listen = "farm:8212"', 20, "has no IP address before the port"),
    (
        '"127.0.0.1:8414"',
        '"127.0.0.1:8404"',
        21,
        "127.0.0.1:8404 is the address of routers.lb-goat.stats already",
    ),
    ('"127.0.0.1:8414"', '"127.0.0.1:8414"\ndata_plane = "nginx"', 22, "data_plane"),
    ('"127.0.0.1:8414"', '"localhost:8500"', 21, "localhost:8500 is the address of registry.http already"),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), BAD_ENVIRONMENTS)
def test_a_wrong_environment_is_refused_with_its_line(old, new, line, reason):
    with pytest.raises(InputRefused) as caught:
        environment.load(change(ENVIRONMENT, old, new), "milkrun.toml")
    assert reason in caught.value.reason
    assert (caught.value.file, caught.value.line) == ("milkrun.toml", line)
    assert caught.value.reason.isprintable()


BAD_SERVICES = [
    ('command = ["{python}", "apps/goat.py"]', "", 0, "command: has to name a program"),
    ('["{python}", "apps/goat.py"]', "[]", 1, "command: has to name a program"),
    ('["{python}", "apps/goat.py"]', '["", "x"]', 1, "command[0]: the program's name is empty"),
    ('["{python}", "apps/goat.py"]', '"python apps/goat.py"', 1, "command: expected `array`, got `str`"),
    ('["{python}", "apps/goat.py"]', '[\n"x",\n7]', 3, "command[1]: expected `str`, got `int`"),
    ('["{python}", "apps/goat.py"]', '[\n"x",\n"\\u0000"]', 3, "command[1]: an argument cannot have a NUL"),
    ('needs = ["cow"]', 'needs = ["goat"]', 2, "needs[0]: a service does not need itself"),
    ('needs = ["cow"]', 'needs = ["cow",\n"cow"]', 3, "needs[1]: `cow` stands there twice"),
    ('needs = ["cow"]', 'needs = ["Cow"]', 2, "needs[0]: 'Cow' is not a service name"),
    ('needs = ["cow"]', 'need = ["cow"]', 2, "need: unknown key (did you mean `needs`?)"),
    ('hosts = ["stable-1"]', 'hosts = [""]', 3, "hosts[0]: '' is not a service name"),
    ('MILK = "fat"', "MILK = 3", 6, "env.MILK: expected `str`, got `int`"),
    ('MILK = "fat"', '"A=B" = "fat"', 6, "env.A=B: is not the name of an environment variable"),
    ('MILK = "fat"', 'MILK = "\\u0000"', 6, "env.MILK: a value cannot have a NUL"),
    ('path = "/health"', 'path = "health"', 9, "health.path: has to be a URL's path"),
    ('path = "/health"', 'path = "/a b"', 9, "health.path: has to be a URL's path"),
    ('path = "/health"', 'path = "/\\r\\nHost: x"', 9, "health.path: has to be a URL's path"),
    ("interval_s = 0.5", "interval_s = 0", 10, "health.interval_s: has to be more than 0 seconds"),
    ("interval_s = 0.5", "interval_s = -1.0", 10, "not -1"),
    ("interval_s = 0.5", "interval_s = inf", 10, "not inf"),
    ("interval_s = 0.5", "interval_s = nan", 10, "not nan"),
    ("interval_s = 0.5", 'interval_s = "1s"', 10, "health.interval_s: expected `float`, got `str`"),
    ("interval_s = 0.5", "intervall_s = 1", 10, "(did you mean `interval_s`?)"),
    ("timeout_s = 1", "timeout_s = 0.0", 11, "health.timeout_s"),
    ("rise = 2", "rise = 0", 12, "health.rise: has to be 1 to 1000, not 0"),
    ("rise = 2", "rise = 1.5", 12, "health.rise: expected `int`, got `float`"),
    ("rise = 2", "rise = true", 12, "health.rise: expected `int`, got `bool`"),
    ("fall = 3", "fall = -1", 13, "health.fall"),
    ("drain_limit_s = 60", "drain_limit_s = 0", 16, "stop.drain_limit_s"),
    ("stop_limit_s = 10.0", "stop_limit_s = 1e9", 17, "stop.stop_limit_s"),
]


@pytest.mark.parametrize(("old", "new", "line", "reason"), BAD_SERVICES)
def test_a_wrong_service_is_refused_with_its_line(old, new, line, reason):
    with pytest.raises(InputRefused) as caught:
        service.load(change(SERVICE, old, new), "services/goat.toml")
    assert reason in caught.value.reason
    assert (caught.value.file, caught.value.line) == ("services/goat.toml", line)


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"\xef\xbb\xbfname = 1", 1, "byte order mark"),
        (b"name = 1\n\0", 2, "NUL"),
        (b"\nname = '\xff'", 2, "not UTF-8"),
        (b"#" * (1 << 20) + b"\n", 0, "is the most"),
        (b"a = " + b"[" * 5000, 0, "nested too deep"),
        (b"a = " + b"9" * 5000, 0, "not TOML"),
        (b"name =\n", 1, "not TOML"),
        (b'name = "x"\n[registry', 2, "not TOML"),
    ],
)
def test_what_is_no_toml_is_refused(data, line, reason):
    with pytest.raises(InputRefused) as caught:
        environment.load(data, "milkrun.toml")
    assert reason in caught.value.reason
    assert caught.value.line == line


def test_a_file_named_after_no_service_is_refused():
    with pytest.raises(InputRefused, match="'Goat' is not a service name"):
        service.load(SERVICE, "services/Goat.toml")


@given(st.data())
def test_a_wounded_file_is_read_or_refused(data):
    start = data.draw(st.integers(0, len(ENVIRONMENT)))
    end = data.draw(st.integers(start, min(len(ENVIRONMENT), start + 20)))
    wounded = ENVIRONMENT[:start] + data.draw(st.binary(max_size=6)) + ENVIRONMENT[end:]
    try:
        environment.load(wounded, "milkrun.toml")
    except InputRefused as error:
        line = error.line
    else:
        line = 0
    assert 0 <= line <= wounded.count(b"\n") + 1


def test_no_environment_above_is_not_found_with_what_to_do(tmp_path):
    with pytest.raises(NotFound) as caught:
        Folder.find(tmp_path)
    assert "milkrun init DIR --template dairy" in caught.value.remedy
    assert "--env DIR" in caught.value.remedy


def test_the_folder_names_its_parts():
    folder = Folder(Path("/farm"))
    assert folder.router("lb-goat") == Path("/farm/.milkrun/routers/lb-goat")
    assert folder.deploy_file("goat") == "deploy/goat.json"
    assert {folder.registry, folder.agent, folder.gitsync, folder.logs, folder.up_file, folder.lock_file} == {
        Path("/farm/.milkrun") / part for part in ("registry", "agent", "gitsync", "logs", "up.json", "lock")
    }


def test_a_missing_settings_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        Folder(tmp_path).load_environment()
