"""The conversation with Envoy, tried on a model of Envoy: no route leads to what is not there, and all of it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.router.envoy.conversation import Conversation, Request
from milkrun.router.envoy.resources import Kind, Snapshot

NAMES = ("a", "b", "c")
ROUTES = "front"


def snapshot(version, clusters: dict[str, int], routes: set[str], listener=0, endpoints=0) -> Snapshot:
    """Clusters with their content, and what the routes lead to."""
    return Snapshot(
        version=str(version),
        resources={
            Kind.CLUSTERS: {name: b"%d" % content for name, content in clusters.items()},
            Kind.ENDPOINTS: dict.fromkeys(clusters, b"%d endpoints" % endpoints),
            Kind.LISTENERS: {"front": b"%d" % listener},
            Kind.ROUTES: {ROUTES: ",".join(sorted(routes)).encode()},
        },
    )


class Envoy:
    """What Envoy does with answers, as its documents say: a new or changed cluster serves once it has endpoints that
    came after it and were probed, and only then the clusters are acknowledged; until then the former one serves.
    """

    def __init__(self) -> None:
        self.serving: dict[str, bytes] = {}
        self.warming: dict[str, bytes] = {}
        self.probing: set[str] = set()
        self.routes: set[str] = set()
        self.listening = False
        self.said: list[Request] = [Request(kind=Kind.CLUSTERS)]
        self._asked: dict[Kind, frozenset[str]] = {}
        self._nonces: dict[Kind, str] = {}
        self._held: Request | None = None
        self.refuses: set[bytes] = set()

    def told(self, answer) -> None:
        self._nonces[answer.kind] = answer.nonce
        if self.refuses & set(answer.resources.values()):
            self._say(answer.kind, error="no")
            self.probing |= answer.resources.keys() & self.warming.keys()  # they serve without endpoints
            return
        match answer.kind:
            case Kind.CLUSTERS:
                self._clusters(answer.resources)
            case Kind.ENDPOINTS:
                assert answer.resources.keys() <= self._asked[Kind.ENDPOINTS]
                self.probing |= answer.resources.keys() & self.warming.keys()
                self._say(Kind.ENDPOINTS)
            case Kind.LISTENERS:
                self.listening = True
                self._ask(Kind.ROUTES, frozenset({ROUTES}))
                self._say(Kind.LISTENERS)
            case Kind.ROUTES:
                self.routes = set(answer.resources[ROUTES].decode().split(",")) - {""}
                self._say(Kind.ROUTES)
        assert self.routes <= self.serving.keys(), "a route leads to a cluster that does not serve"

    def _clusters(self, resources) -> None:
        self.probing = set()
        self.warming = {name: each for name, each in resources.items() if self.serving.get(name) != each}
        self.serving = {name: each for name, each in self.serving.items() if name in resources}
        if frozenset(resources) != self._asked.get(Kind.ENDPOINTS, frozenset()):
            self._ask(Kind.ENDPOINTS, frozenset(resources))
        self._held = Request(kind=Kind.CLUSTERS, nonce=self._nonces[Kind.CLUSTERS])
        self._warm()

    def probe(self) -> bool:
        """The endpoints that came were probed; False when there are none."""
        found, self.probing = self.probing & self.warming.keys(), set()
        for name in found:
            self.serving[name] = self.warming.pop(name)
        self._warm()
        return bool(found)

    def _warm(self) -> None:
        if self._held and not self.warming:
            self.said.append(self._held)
            self._held = None
            if Kind.LISTENERS not in self._asked:
                self._ask(Kind.LISTENERS, frozenset())

    def _ask(self, kind: Kind, names: frozenset[str]) -> None:
        if self._asked.get(kind) != names:
            self._asked[kind] = names
            self.said.append(Request(kind=kind, names=names, nonce=self._nonces.get(kind, "")))

    def _say(self, kind: Kind, error: str = "") -> None:
        names = self._asked.get(kind, frozenset())
        self.said.append(Request(kind=kind, names=names, nonce=self._nonces[kind], error=error))


def talk(conversation: Conversation, envoy: Envoy, choices=None) -> None:
    """Both speak until neither has anything to say; `choices` decides who does when both could."""
    for _ in range(200):
        heard = envoy.said and (choices is None or choices())
        if heard or (answer := conversation.next()) is None:
            if envoy.said:
                conversation.hear(envoy.said.pop(0))
            elif not envoy.probe():
                return
        else:
            envoy.told(answer)
    raise AssertionError("they talk for ever")


states = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2)).flatmap(
    lambda clusters: st.tuples(
        st.just(clusters),
        st.sets(st.sampled_from(sorted(clusters))) if clusters else st.just(set()),
        st.integers(0, 1),
    )
)


@given(st.lists(states, min_size=1, max_size=6), st.data())
def test_whatever_is_wished_when_it_is_had_in_the_end_and_no_route_ever_leads_nowhere(wishes, data):
    envoy = Envoy()
    snapshots = [snapshot(number, *each) for number, each in enumerate(wishes)]
    conversation = Conversation(snapshots[0])
    for each in snapshots:
        conversation.wish(each)
        for _ in range(data.draw(st.integers(0, 8))):  # the next wish comes in the middle of it
            if envoy.said and data.draw(st.booleans()):
                conversation.hear(envoy.said.pop(0))
            elif answer := conversation.next():
                envoy.told(answer)
            elif data.draw(st.booleans()):
                envoy.probe()

    talk(conversation, envoy, lambda: data.draw(st.booleans()))

    clusters, routes, _ = wishes[-1]
    assert conversation.settled
    assert conversation.refused == {}
    assert envoy.serving == {name: b"%d" % content for name, content in clusters.items()}
    assert envoy.routes == routes
    assert envoy.warming == {}


@given(states, states)
def test_a_new_stream_begins_with_the_whole_state_and_changes_nothing(wish, other):
    envoy = Envoy()
    first = snapshot(1, *wish)
    talk(Conversation(first), envoy)
    served, routes = dict(envoy.serving), set(envoy.routes)
    asked = dict(envoy._asked)

    envoy._nonces.clear()
    envoy.said = [
        Request(kind=kind, names=asked.get(kind, frozenset())) for kind in Kind if kind in asked or kind.whole
    ]
    again = Conversation(first)
    talk(again, envoy)

    assert again.settled
    assert (envoy.serving, envoy.routes) == (served, routes)
    again.wish(snapshot(2, *other))
    talk(again, envoy)
    assert envoy.serving == {name: b"%d" % content for name, content in other[0].items()}


@pytest.mark.parametrize(("kind", "refused"), [(Kind.CLUSTERS, b"7"), (Kind.ENDPOINTS, b"9 endpoints")])
def test_what_is_refused_is_said_and_not_sent_again_until_it_is_another(kind, refused):
    envoy = Envoy()
    conversation = Conversation(snapshot(1, {"a": 1}, {"a"}))
    talk(conversation, envoy)
    bad = snapshot(2, {"a": 1, "b": 7}, {"a", "b"}, endpoints=9)
    envoy.refuses = {refused}

    conversation.wish(bad)
    talk(conversation, envoy)

    assert conversation.refused == {kind: "no"}
    assert envoy.routes == {"a"}, "nothing leads to what was refused"
    assert conversation.next() is None
    envoy.refuses = set()
    conversation.wish(snapshot(3, {"a": 1}, {"a"}))
    talk(conversation, envoy)
    assert conversation.refused == {}
    assert (conversation.settled, set(envoy.serving)) == (True, {"a"})


def test_an_answer_to_an_older_answer_is_passed_over():
    conversation = Conversation(snapshot(1, {}, set()))
    conversation.hear(Request(kind=Kind.CLUSTERS))
    first = conversation.next()
    assert first
    conversation.hear(Request(kind=Kind.CLUSTERS, nonce="another", error="old"))

    assert conversation.refused == {}
    assert not conversation.settled
