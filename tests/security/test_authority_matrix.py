"""Every route, asked by every kind of client in every mode: the table of routes says what comes of it.

What a route declares is all that this test goes by. So a route that asks for less than it declares, or for
something else, is found here by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from security.samples import EVENT, OWN, SAMPLES, Sample, populated

from milkrun.registry import commands
from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.access.rules import EVERYTHING, SINGLE, Level, Resource, Rule
from milkrun.registry.access.tokens import Policy, Token, digest_of
from milkrun.registry.engine import Engine
from milkrun.registry.http.app import ROUTES, App
from milkrun.registry.http.message import Reply, Request
from milkrun.registry.http.route import Route, Table

OWN_SECRET = b"own-secret-own-secret-own-secret-"
HELD = b"held-secret-held-secret-held-secr"
MARK = b"x-consul-results-filtered-by-acls"
NO_TOKEN = {"none on loopback": True, "none from elsewhere": False}
TOKENS = ("unknown", "exactly that", "one level less", "on another name", "all but that", "own")


class NoDisk:
    """A storage with the populated state, which takes every commit and keeps none."""

    def __init__(self) -> None:
        machine = populated()
        self._rows = [
            (kind, body) for (kind, _), body in machine.ledger.take()[0].items() if body is not None
        ]
        self.index = machine.ledger.index

    def rows(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._rows)

    def commit(self, rows: Any, index: int) -> None:
        pass


DISK = NoDisk()


def access(route: Route, sample: Sample) -> str:
    return sample.access or route.access


def needs(route: Route, sample: Sample) -> list[Rule]:
    """The rules that the route says it takes: the first is the one that it is about."""
    if route.resource in ("none", "any"):
        return []
    level = Level[access(route, sample).upper()]
    found = []
    for at, word in enumerate(route.resource.split("+")):
        resource = Resource(word)
        prefix = resource in SINGLE or sample.prefix
        found.append(Rule(resource, sample.name(word), Level.READ if at else level, prefix=prefix))
    return found


def policies(route: Route, sample: Sample) -> dict[str, list[list[Rule]]]:
    """The policies of each kind of token, one for each rule that could be wrong."""
    exact = needs(route, sample)

    def instead(wrong: Rule) -> dict[str, list[Rule]]:
        others = [rule for rule in exact if rule is not wrong]
        resource, name, level, prefix = wrong.resource, wrong.name, wrong.level, wrong.prefix
        return {
            "one level less": [*others, Rule(resource, name, Level(level - 1), prefix=prefix)],
            "on another name": [
                *others,
                *([] if resource in SINGLE else [Rule(resource, f"{name}x", Level.WRITE, prefix=prefix)]),
            ],
            "all but that": [*EVERYTHING, Rule(resource, name, Level.DENY, prefix=prefix)],
        }

    found: dict[str, list[list[Rule]]] = {
        "exactly that": [exact],
        "one level less": [],
        "on another name": [],
        "all but that": [],
    }
    for rule in exact:
        for kind, rules in instead(rule).items():
            found[kind].append(rules)
    return found


def text(rules: list[Rule]) -> str:
    """The policy as a person would write it."""
    lines = []
    for rule in rules:
        level = f'"{rule.level.name.lower()}"'
        if rule.resource in SINGLE:
            lines.append(f"{rule.resource} = {level}")
        else:
            lines.append(f'{rule.resource}{"_prefix" * rule.prefix} "{rule.name}" {{ policy = {level} }}')
    return "\n".join(lines)


def is_allowed(route: Route, sample: Sample, mode: Mode, asker: str) -> bool:
    if mode is Mode.OPEN or route.access == "none":
        return True
    if asker in NO_TOKEN:
        open_to_all = route.resource not in ("any", "acl", "keyring") and access(route, sample) == "read"
        return mode is Mode.DEFAULT and NO_TOKEN[asker] and open_to_all
    return asker in ("own", "exactly that") or (route.resource == "any" and asker != "unknown")


async def ask(
    route: Route, sample: Sample, mode: Mode, asker: str, rules: list[Rule] | None = None
) -> tuple[Reply, bool]:
    """The reply, and whether anything changed."""
    engine = Engine(DISK, OWN, gate=Gate(mode, digest_of(OWN_SECRET)))
    engine.machine.apply(EVENT, 1000.0)
    if rules is not None:
        policy = Policy(id="00000000-0000-0000-0000-0000000000ee", name="held", text=text(rules))
        engine.machine.apply(commands.PutPolicy(policy), 1000.0)
        accessor = "00000000-0000-0000-0000-0000000000ff"
        token = Token(accessor=accessor, digest=digest_of(HELD), policies=[policy.id])
        engine.machine.apply(commands.PutToken(token), 1000.0)
        engine.machine.ledger.take()
    index, events = engine.machine.ledger.index, len(engine.machine.events.named(None))
    secret = {"own": OWN_SECRET, "unknown": b"unknown-secret-unknown-secret-unk"}.get(asker, HELD)
    request = Request(
        route.method,
        f"{route.path}{sample.rest}".encode(),
        [],
        sample.raw,
        size=len(sample.raw),
        local=NO_TOKEN.get(asker, False),
        secret=b"" if asker in NO_TOKEN else secret,
    )
    reply = await App(engine)(request)
    return reply, (engine.machine.ledger.index, len(engine.machine.events.named(None))) != (index, events)


def wrong_when_allowed(reply: Reply, full: Reply, sample: Sample) -> str:
    if reply.status != full.status:
        return f"{reply.status} {reply.body[:80]!r} and not {full.status} as with the own token"
    if sample.shows is not None and sample.shows.encode() not in reply.body:
        return f"does not show {sample.shows}: {reply.body[:200]!r}"
    return ""


def wrong_when_denied(route: Route, reply: Reply, changed: bool, sample: Sample) -> str:
    if changed:
        return "changed something"
    if reply.status == 403 or (
        route.path == "/v1/txn" and reply.status == 409 and b"Permission denied" in reply.body
    ):
        return ""
    if access(route, sample) == "write":
        return f"a change was answered with {reply.status} {reply.body[:80]!r}"
    if sample.shows is None:
        return ""
    if sample.shows.encode() in reply.body:
        return f"shows {sample.shows}: {reply.body[:200]!r}"
    return "" if MARK in dict(reply.headers) else f"hides something and does not say so: {reply.status}"


def test_each_route_has_a_sample_request_and_no_other_has():
    routes = {(route.method, route.path) for route in ROUTES}

    assert routes - SAMPLES.keys() == set(), "say in samples.py how these are asked for"
    assert SAMPLES.keys() - routes == set(), "there is no such route"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_who_may_use_a_route_is_what_it_declares(route):
    found = []
    for sample in SAMPLES[route.method, route.path]:
        for mode in Mode:
            full, _ = await ask(route, sample, mode, "own")
            if sample.shows is not None and mode is not Mode.OPEN:
                assert sample.shows.encode() in full.body, (
                    f"{sample.rest}: the own token sees {full.body[:300]!r}"
                )
            held = policies(route, sample)
            for asker in (*NO_TOKEN, *TOKENS):
                for rules in held.get(asker, [None]):
                    reply, changed = await ask(route, sample, mode, asker, rules)
                    assert reply.status < 500 or reply.status == full.status, reply.body
                    expected = is_allowed(route, sample, mode, asker)
                    acl_is_off = mode is Mode.OPEN and "/acl/" in route.path
                    wrong = (
                        wrong_when_allowed(reply, full, Sample() if acl_is_off else sample)
                        if expected
                        else wrong_when_denied(route, reply, changed, sample)
                    )
                    if wrong:
                        whom = f"{asker} ({text(rules)!r})" if rules else asker
                        found.append(f"{sample.rest!r} {mode} {whom}: {wrong}")
    assert not found, "\n".join(found)


async def test_a_handler_that_forgets_to_ask_shows_nothing():
    async def forgetful(engine: Engine, request: Request) -> Reply:
        return Reply.json({"everything": "there is"})

    route = Route("GET", "/v1/forgetful", forgetful, "key", "read")
    for mode in Mode:
        app = App(Engine(DISK, OWN, gate=Gate(mode, digest_of(OWN_SECRET))))
        app._table = Table([route])
        reply = await app(Request("GET", b"/v1/forgetful", [], secret=OWN_SECRET, local=True))
        assert reply.status == 500
        assert b"everything" not in reply.body
