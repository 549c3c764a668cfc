"""Status and Output of every kind of check, against ours and a real Consul 1.8.7.

`DIFFERENCES` names what is not the same, and why.
"""

from __future__ import annotations

import re

import pytest
from ports import free_port

CLOSED = free_port()
SLOW = {"Timeout": "1s"}

ANSWERS = {
    "ok": ({"HTTP": "{url}/code/200"}, "passing", "HTTP GET {url}/code/200: 200 OK Output: hello"),
    "created": ({"HTTP": "{url}/code/201"}, "passing", "HTTP GET {url}/code/201: 201 Created Output: hello"),
    "no-content": ({"HTTP": "{url}/code/204"}, "passing", "HTTP GET {url}/code/204: 204 No Content Output: "),
    "not-modified": (
        {"HTTP": "{url}/code/304"},
        "critical",
        "HTTP GET {url}/code/304: 304 Not Modified Output: ",
    ),
    "not-found": (
        {"HTTP": "{url}/code/404"},
        "critical",
        "HTTP GET {url}/code/404: 404 Not Found Output: hello",
    ),
    "too-many": (
        {"HTTP": "{url}/code/429"},
        "warning",
        "HTTP GET {url}/code/429: 429 Too Many Requests Output: hello",
    ),
    "error": (
        {"HTTP": "{url}/code/500"},
        "critical",
        "HTTP GET {url}/code/500: 500 Internal Server Error Output: hello",
    ),
    "odd-code": ({"HTTP": "{url}/code/599"}, "critical", "HTTP GET {url}/code/599: 599  Output: hello"),
    "odd-reason": ({"HTTP": "{url}/reason"}, "passing", "HTTP GET {url}/reason: 200 Yeah Man Output: "),
    "empty": ({"HTTP": "{url}/empty"}, "passing", "HTTP GET {url}/empty: 200 OK Output: "),
    "query": (
        {"HTTP": "{url}/code/200?a=b&c=%20"},
        "passing",
        "HTTP GET {url}/code/200?a=b&c=%20: 200 OK Output: hello",
    ),
    "head": (
        {"HTTP": "{url}/code/200", "Method": "HEAD"},
        "passing",
        "HTTP HEAD {url}/code/200: 200 OK Output: ",
    ),
    "long": (
        {"HTTP": "{url}/long"},
        "passing",
        "HTTP GET {url}/long: 200 OK Output: " + "".join(f"{number:05d}," for number in range(1000))[-4096:],
    ),
    "output-size": (
        {"HTTP": "{url}/long", "OutputMaxSize": 10},
        "passing",
        "HTTP GET {url}/long: 200 OK Output: 998,00999,",
    ),
    "bytes": ({"HTTP": "{url}/bytes"}, "passing", "HTTP GET {url}/bytes: 200 OK Output: \ufffd\ufffd\x00ok"),
    "cut": ({"HTTP": "{url}/short"}, "passing", "HTTP GET {url}/short: 200 OK Output: abc"),
    "trickle": (
        {"HTTP": "{url}/trickle", **SLOW},
        "passing",
        re.compile(r"HTTP GET {url}/trickle: 200 OK Output: x+"),
    ),
    "echo": (
        {
            "HTTP": "{url}/echo",
            "Method": "POST",
            "Header": {"X-A": ["1"], "Host": ["foo.example"]},
            "Body": "abc",
        },
        "passing",
        'HTTP POST {url}/echo: 200 OK Output: ["POST", "foo.example", "Consul Health Check", "1", null, "abc"]',
    ),
    "login": (
        {"HTTP": "http://u:p@{host}/echo"},
        "passing",
        re.compile(
            r'HTTP GET http://u:p@{host}/echo: 200 OK Output: \["GET", "{host}", .*, "Basic dTpw", ""\]'
        ),
    ),
    "closes": ({"HTTP": "{url}/close"}, "critical", 'Get "{url}/close": EOF'),
    "hangs": (
        {"HTTP": "{url}/hang", **SLOW},
        "critical",
        'Get "{url}/hang": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
    ),
    "refused": (
        {"HTTP": "http://127.0.0.1:{closed}/"},
        "critical",
        'Get "http://127.0.0.1:{closed}/": dial tcp 127.0.0.1:{closed}: connect: connection refused',
    ),
    "refused-post": (
        {"HTTP": "http://[::1]:{closed}/", "Method": "POST"},
        "critical",
        'Post "http://[::1]:{closed}/": dial tcp [::1]:{closed}: connect: connection refused',
    ),
    "no-host": ({"HTTP": "http:///x"}, "critical", 'Get "http:///x": http: no Host in request URL'),
    "ftp": (
        {"HTTP": "ftp://127.0.0.1/x"},
        "critical",
        'Get "ftp://127.0.0.1/x": unsupported protocol scheme "ftp"',
    ),
    "method": ({"HTTP": "{url}/", "Method": "B AD"}, "critical", 'net/http: invalid method "B AD"'),
    "tcp": ({"TCP": "{host}"}, "passing", "TCP connect {host}: Success"),
    "tcp-refused": (
        {"TCP": "127.0.0.1:{closed}"},
        "critical",
        "dial tcp 127.0.0.1:{closed}: connect: connection refused",
    ),
    "tcp-refused-6": (
        {"TCP": "[::1]:{closed}"},
        "critical",
        "dial tcp [::1]:{closed}: connect: connection refused",
    ),
    "tcp-no-port": ({"TCP": "127.0.0.1"}, "critical", "dial tcp: address 127.0.0.1: missing port in address"),
    "tcp-colons": ({"TCP": "::1:80"}, "critical", "dial tcp: address ::1:80: too many colons in address"),
    "tcp-port": ({"TCP": "127.0.0.1:99999"}, "critical", "dial tcp: address 99999: invalid port"),
}

DIFFERENCES = {
    "redirect": (
        "no redirect is followed: one led Consul to a cloud's metadata server (CVE-2022-29153)",
        {"HTTP": "{url}/redirect"},
        ("passing", "HTTP GET {url}/redirect: 200 OK Output: hello"),
        ("critical", "HTTP GET {url}/redirect: 302 Found Output: hello"),
    ),
    "reset": (
        "the text does not name the probe's own port",
        {"HTTP": "{url}/reset"},
        (
            "critical",
            re.compile(r'Get "{url}/reset": read tcp 127.0.0.1:\d+->{host}: read: connection reset by peer'),
        ),
        ("critical", 'Get "{url}/reset": read tcp {host}: read: connection reset by peer'),
    ),
    "garbage": (
        "another HTTP parser finds another first mistake",
        {"HTTP": "{url}/garbage"},
        (
            "critical",
            # Go names its transport or not: that depends on which of its two sides sees the mistake first.
            re.compile(
                r'Get "{url}/garbage": (net/http: HTTP/1.x transport connection broken: )?malformed .*'
            ),
        ),
        ("critical", re.compile(r'Get "{url}/garbage": net/http: HTTP/1.x transport connection broken: .*')),
    ),
    "name": (
        "the text does not name the resolver",
        {"TCP": "no.such.invalid:80"},
        (
            "critical",
            re.compile(r"dial tcp: lookup no.such.invalid.*: (no such host|server misbehaving|.*timeout)"),
        ),
        ("critical", re.compile(r"dial tcp: lookup no.such.invalid: (no such host|i/o timeout)")),
    ),
    "itself": (
        "a check does not read the registry with the rights that loopback has there",
        {"TCP": "127.0.0.1:{own}"},
        ("passing", "TCP connect 127.0.0.1:{own}: Success"),
        ("critical", "checks never reach 127.0.0.1 port {own}: it is this registry's own"),
    ),
}

SCRIPTS = {
    # What the check says, the codes that the service answers, and the statuses after each.
    "none": ({}, [200, 503, 429, 200], "passing critical warning passing"),
    "starts-passing": ({"Status": "passing", "FailuresBeforeCritical": 3}, [503, 503], "critical critical"),
    "three-failures": (
        {"FailuresBeforeCritical": 3},
        [503, 200, 503, 503, 503, 503],
        "critical passing passing passing critical critical",
    ),
    "first-success": ({"SuccessBeforePassing": 3}, [200, 200], "passing passing"),
    "three-successes": (
        {"SuccessBeforePassing": 3, "Status": "passing"},
        [503, 200, 200, 200],
        "critical critical critical passing",
    ),
    "both": (
        {"SuccessBeforePassing": 2, "FailuresBeforeCritical": 2},
        [200, 503, 200, 503, 503, 200, 503, 200, 200],
        "passing passing passing passing critical critical critical critical passing",
    ),
    "warnings-count": (
        {"SuccessBeforePassing": 2},
        [429, 503, 429, 200, 429],
        "warning critical critical passing warning",
    ),
}

ALIASES = {
    "alias-ok": ({"AliasService": "ok"}, "passing", "All checks passing."),
    "alias-warning": (
        {"AliasService": "too-many"},
        "warning",
        re.compile(
            r"Aliased check \"Service 'too-many' check\" failing: HTTP GET {url}/code/429: 429 .*hello"
        ),
    ),
    "alias-critical": (
        {"AliasService": "tcp-no-port"},
        "critical",
        re.compile(r"Aliased check \"Service 'tcp-no-port' check\" failing: .*"),
    ),
    "alias-unknown": ({"AliasService": "nobody"}, "critical", "Service nobody could not be found on node "),
    "alias-bare": ({"AliasService": "bare"}, "passing", "No checks found."),
    "alias-node": ({"AliasNode": "n1"}, "passing", "All checks passing."),
    "alias-both": ({"AliasNode": "n1", "AliasService": "bare"}, "passing", "All checks passing."),
}

ALL = {**ANSWERS, **ALIASES, **{name: (check, *ours) for name, (_, check, _, ours) in DIFFERENCES.items()}}


def fill(value, service, registry):
    """The text with the service's and the registry's addresses in it."""
    host = f"127.0.0.1:{service.server_address[1]}"
    words = {"{url}": f"http://{host}", "{host}": host, "{closed}": str(CLOSED), "{own}": str(registry.port)}
    if isinstance(value, dict):
        return {name: fill(each, service, registry) for name, each in value.items()}
    if not isinstance(value, str):
        return value
    for word, text in words.items():
        value = value.replace(word, text)
    return value


@pytest.fixture(scope="module")
def registered(registries, service):
    """Everything is registered with everyone before anything is asked: the checks run side by side."""
    for kind, registry in registries.items():
        registry.call("PUT", "/v1/agent/service/register", {"Name": "bare"})
        for name, (check, script, _) in SCRIPTS.items():
            service.scripts[name] = script
            url = fill(f"{{url}}/seq/{name}", service, registry)
            registry.register(name, HTTP=url, Header={"X-Who": [kind]}, Interval="1s", **check)
        for name, (check, _, _) in ALL.items():
            times = {} if name in ALIASES else {"Interval": "1s"}
            registry.register(name, **fill(check, service, registry), **times)


def compare(check, status, output, service, registry):
    assert check["Status"] == status, check
    if isinstance(output, re.Pattern):
        assert re.fullmatch(fill(output.pattern, service, registry), check["Output"]), check["Output"]
    else:
        assert check["Output"] == fill(output, service, registry)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", [*ANSWERS, *ALIASES])
def test_the_same(registry, service, name):
    _, status, output = ALL[name]
    check = registry.until(name, lambda it: it["Status"] == status and it["Output"])
    compare(check, status, output, service, registry)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", DIFFERENCES)
def test_not_the_same_and_why(registry, service, name):
    why, _, theirs, ours = DIFFERENCES[name]
    assert why
    status, output = ours if registry.kind == "embedded" else theirs
    check = registry.until(name, lambda it: it["Status"] == status and it["Output"])
    compare(check, status, output, service, registry)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_over_time(registry, service, name):
    assert " ".join(service.until_played(registry.kind, name)) == SCRIPTS[name][2]


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ({"HTTP": "http://x"}, "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks"),
        ({"GRPC": "x:1"}, "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks"),
        (
            {"HTTP": "x", "Interval": "-1s"},
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        ({"AliasService": "x", "TTL": "5s"}, "Invalid check: TTL must be not be set for Alias checks"),
        (
            {"HTTP": "http://x", "Interval": "1s", "OutputMaxSize": -1},
            "Invalid check: MaxOutputMaxSize must be positive",
        ),
        ({"Interval": "1s", "Timeout": "1s"}, "Invalid check: TTL must be > 0 for TTL checks"),
    ],
)
def test_the_same_refusal(registry, check, text):
    assert registry.call("PUT", "/v1/agent/check/register", {"Name": "refused", **check}) == (400, text)


def test_a_script_is_refused(registry):
    """The difference: Consul 1.8.7 answers 500, and names an option that this registry does not have."""
    status, text = registry.call(
        "PUT", "/v1/agent/check/register", {"Name": "s", "Args": ["id"], "Interval": "1s"}
    )
    assert text.startswith("Scripts are disabled on this agent")
    assert status == (400 if registry.kind == "embedded" else 500)


def test_maintenance_of_the_node_reaches_an_alias_that_names_it(registry, service, registered):
    for name in ("alias-bare", "alias-both"):
        registry.until(name, lambda it: it["Status"] == "passing")
    registry.call("PUT", "/v1/agent/maintenance?enable=true&reason=x")
    check = registry.until("alias-both", lambda it: it["Status"] == "critical")
    assert check["Output"] == 'Aliased check "Node Maintenance Mode" failing: '
    assert registry.checks()["alias-bare"]["Status"] == "passing"
    registry.call("PUT", "/v1/agent/maintenance?enable=false")
    registry.until("alias-both", lambda it: it["Status"] == "passing")
