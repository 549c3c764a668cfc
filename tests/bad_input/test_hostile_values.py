"""Hostile texts and numbers in every field of every operation: each is answered, and no 500 is a mistake."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote

import hostile
import pytest
from bad_input.description import DESCRIPTION, fields, harmless, operations, parameters, put_at, resolved
from bad_input.known_errors import is_known
from bad_input.remains import after_a_restart, remains

TEXTS = [
    *hostile._NAMES,
    *hostile._ADDRESSES[::3],
    *(f"good{gap}{hostile.COMMANDS[0]}" for gap in hostile._BREAKS),
]
NUMBERS = [*hostile.PORTS, *hostile.WEIGHTS, 2**64, 2**100, -(2**100), 0.5, 1e15, 1e308, -1e308, 10**400]
OTHERS = [None, True, [], {}, "", [[]], {"a": {"b": []}}, "1", [1]]
"""Of another type than the field."""
BROKEN = [
    *(
        b"",
        b" ",
        b"{",
        b"[",
        b"nul",
        b"null",
        b"0",
        b'""',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{}{}",
        b"[" * 100_000,
    ),
    *(
        b'{"a":' * 50_000,
        b'{"Name":NaN}',
        b'{"Port":Infinity}',
        b'{"Name":"\\ud800"}',
        b'{"Name":"a","Name":1}',
    ),
]
"""Bodies that are no JSON, or a strange one."""
EVERY = 8
"""Parameters that many operations share are handled in one place: each operation takes another eighth of the texts."""
ANSWERED_WITHIN_S = 20.0
TOKENS = "/v1/acl/"
HTTP = {"HTTP": "http://127.0.0.1:1/", "Interval": "60s"}
WHOLE = {
    "/v1/agent/service/register": [
        {"Name": "good", "Check": {"TTL": "60s"}},
        {"Name": "good", "Check": HTTP},
    ],
    "/v1/agent/check/register": [{"Name": "good", "TTL": "60s"}, {"Name": "good", **HTTP}],
    "/v1/agent/check/update/{check}": [{"Status": "passing"}],
    "/v1/catalog/register": [{"Node": "good", "Address": "10.0.0.1"}],
    "/v1/catalog/deregister": [{"Node": "good"}],
    "/v1/acl/policy": [{"Name": "good"}],
}
"""What an operation needs besides the field that is hostile."""
OPERATIONS = {
    "KV": {"Verb": "set", "Key": "good"},
    "Node": {"Verb": "set", "Node": {"Node": "good", "Address": "10.0.0.1"}},
    "Service": {"Verb": "set", "Node": "good", "Service": {"Service": "good"}},
    "Check": {"Verb": "set", "Check": {"Node": "good", "CheckID": "good", "Status": "passing"}},
}
"""The same for each kind of a transaction's operations."""


def wholes(path, at):
    """Good bodies, into which a hostile value is put at that place."""
    if path == "/v1/txn" and len(at) > 1:
        return [[{at[1]: OPERATIONS[at[1]]}]]
    return WHOLE.get(path, [None])


class Client:
    """One kept connection."""

    def __init__(self, server):
        self.server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWERED_WITHIN_S)
        self._headers = {"X-Consul-Token": server.token} if hasattr(server, "token") else {}

    def ask(self, method, url, body=None):
        """The status and the text of the answer: there is one, and it is no mistake of the registry's."""
        self._connection.request(method.upper(), url, body=body, headers=self._headers)
        reply = self._connection.getresponse()
        text = reply.read().decode(errors="replace")
        if reply.status >= 500 and not (reply.status == 503 and url.startswith("/v1/agent/health/")):
            assert is_known(text), (method, url, (body or b"")[:2000], text)
        return reply.status, text

    def close(self):
        self._connection.close()


@pytest.fixture(scope="module")
def clients(registry, guarded):
    found = {False: Client(registry), True: Client(guarded)}
    yield found
    for client in found.values():
        client.close()


@pytest.fixture
def client(clients, operation):
    return clients[operation[1].startswith(TOKENS)]


def encoded(text):
    return quote(text.encode(errors="surrogatepass"), safe="")


@pytest.mark.parametrize("operation", harmless(), ids=" ".join)
def test_texts_in_path_and_query(client, description, operation):
    method, path = operation
    stem, named, _ = path.partition("{")
    if named:
        for text in TEXTS:
            client.ask(method, stem + encoded(text))
    turn = operations().index(operation) % EVERY
    described = description["paths"][path][method]["parameters"]
    shared = {resolved(description, each)["name"] for each in described if "$ref" in each}
    for name in parameters(description, description["paths"][path][method], "query"):
        wait = "" if name == "wait" else "&wait=1ms"
        for text in TEXTS[turn::EVERY] if name in shared else TEXTS:
            client.ask(method, f"{stem}{'good' if named else ''}?{name}={encoded(text)}{wait}")


def takes_json(method, path):
    item = json.loads(DESCRIPTION.read_text())["paths"][path][method]
    return "application/json" in item.get("requestBody", {}).get("content", {})


WITH_BODY = [each for each in harmless() if takes_json(*each)]


@pytest.mark.parametrize("operation", WITH_BODY, ids=" ".join)
def test_values_in_the_body(client, description, operation):
    method, path = operation
    schema = description["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    url = path.replace("{", "").replace("}", "")
    for broken in BROKEN:
        client.ask(method, url, broken)
    for at, kind in set(fields(description, schema)):
        for value in (*(TEXTS if kind == "string" else NUMBERS), *OTHERS):
            for whole in wholes(path, at):
                client.ask(method, url, json.dumps(put_at(whole, at, value)).encode())


def test_what_all_that_left_is_the_same_after_a_restart(registry, clients, folder):
    status, _ = clients[False].ask("PUT", "/v1/kv/good", b"good")
    assert status == 200
    before = remains(registry)
    assert len(before["nodes"]) > 1
    assert after_a_restart(registry, folder) == before
