import base64

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from milkrun.consul import catalog, keys
from milkrun.consul.wire import Pair
from milkrun.gitsync.plan import (
    OPERATIONS_AT_MOST,
    Change,
    Held,
    InSync,
    OwnedMark,
    is_published,
    plan_published,
    plan_unpublished,
    plan_wish,
    wish_keys,
)
from milkrun.model import (
    VERSIONS_AT_MOST,
    CommitId,
    CommitMark,
    ServiceName,
    VersionName,
    VersionWish,
    Wish,
)
from milkrun.settings.service import PublishedService, ServiceSettings

GOAT = ServiceName("goat")
WISH = Wish(
    versions={
        VersionName("0.0.1"): VersionWish(weight=80.0, replicas=2),
        VersionName("0.0.2"): VersionWish(weight=12.5),
    }
)


def mark(generation: int, commit: str = "") -> CommitMark:
    return CommitMark(commit=CommitId(commit or f"{generation:040x}"), generation=generation, time=generation)


def pair(key: str, value: bytes, index: int) -> Pair:
    """An entry as the registry writes it."""
    wire = {"Key": key, "Value": base64.b64encode(value).decode() or None, "ModifyIndex": index}
    return msgspec.convert(wire, Pair)


class Store:
    """What a registry does with a change, in a dictionary."""

    def __init__(self, start: dict[str, bytes] | None = None) -> None:
        self.index = 0
        self.entries: dict[str, tuple[bytes, int]] = {}
        for key, value in (start or {}).items():
            self.put(key, value)

    def put(self, key: str, value: bytes) -> None:
        self.index += 1
        self.entries[key] = (value, self.index)

    def pairs(self, prefix: str) -> list[Pair]:
        return [
            pair(key, value, index)
            for key, (value, index) in sorted(self.entries.items())
            if key.startswith(prefix)
        ]

    def values(self) -> dict[str, bytes]:
        return {key: value for key, (value, _) in self.entries.items()}

    def apply(self, change: Change) -> bool:
        if self.entries.get(change.guard, (b"", 0))[1] != change.index:
            return False
        if change.value is None:
            del self.entries[change.guard]
        else:
            self.put(change.guard, change.value)
        for key in change.deletes:
            del self.entries[key]
        for key, value in change.puts.items():
            self.put(key, value)
        return True


def sync(store: Store, wish: Wish | None, generation: int) -> object:
    decision = plan_wish(GOAT, wish, store.pairs("goat/"), mark(generation))
    if isinstance(decision, Change):
        assert store.apply(decision)
    return decision


def test_a_wish_becomes_the_dairy_farms_keys_in_one_change():
    store = Store()
    sync(store, WISH, 7)
    values = store.values()
    stored = msgspec.json.decode(values.pop("goat/commit"), type=OwnedMark)
    assert values == {
        "goat/version=0.0.1/weight": b"80",
        "goat/version=0.0.1/replicas": b"2",
        "goat/version=0.0.2/weight": b"12.5",
    }
    assert stored.generation == 7
    assert set(stored.owned) == set(values)


def test_the_same_again_is_in_sync():
    store = Store()
    sync(store, WISH, 7)
    assert sync(store, WISH, 7) == InSync()


def test_a_new_commit_of_the_same_wish_changes_only_the_mark():
    store = Store()
    sync(store, WISH, 7)
    decision = sync(store, WISH, 8)
    assert isinstance(decision, Change)
    assert not decision.puts
    assert not decision.deletes
    assert catalog.wish(GOAT, store.pairs("goat/")).mark == mark(8)


def test_a_key_changed_by_hand_is_set_back_and_said_to_be_so():
    store = Store()
    sync(store, WISH, 7)
    store.put("goat/version=0.0.1/weight", b"1")
    decision = sync(store, WISH, 7)
    assert isinstance(decision, Change)
    assert decision.puts == {"goat/version=0.0.1/weight": b"80"}
    assert decision.same_commit


def test_an_older_generation_is_never_written():
    store = Store()
    sync(store, WISH, 7)
    before = store.values()
    for wish in (WISH, Wish(), None):
        decision = sync(store, wish, 6)
        assert isinstance(decision, Held)
        assert "git revert" in decision.why
    assert store.values() == before


def test_an_amended_commit_is_followed():
    store = Store()
    sync(store, WISH, 7)
    assert isinstance(plan_wish(GOAT, WISH, store.pairs("goat/"), mark(7, "f" * 40)), Change)


def test_a_change_planned_on_what_was_there_before_is_refused_by_its_guard():
    store = Store()
    sync(store, WISH, 7)
    stale = plan_wish(GOAT, Wish(), store.pairs("goat/"), mark(8))
    sync(store, WISH, 9)
    assert isinstance(stale, Change)
    assert not store.apply(stale)


def test_a_first_change_is_guarded_too():
    store = Store()
    first = plan_wish(GOAT, WISH, [], mark(1))
    sync(store, WISH, 2)
    assert isinstance(first, Change)
    assert not store.apply(first)


def test_a_service_that_left_git_leaves_with_its_keys_and_no_others():
    store = Store({"goat/feed": b"hay"})
    sync(store, WISH, 7)
    sync(store, None, 8)
    assert store.values().keys() == {"goat/feed", "goat/commit"}
    # The mark says who asked for nothing, and since when: an emptied registry says neither.
    assert catalog.wish(GOAT, store.pairs("goat/")) == Wish(mark=mark(8))
    assert not is_published(store.pairs("goat/commit")[0])
    assert sync(store, None, 9) == InSync()
    assert isinstance(sync(store, WISH, 7), Held)
    sync(store, WISH, 10)
    assert is_published(store.pairs("goat/commit")[0])


def test_a_mark_that_somebody_else_wrote_gives_no_right_to_other_keys():
    wrong = OwnedMark(
        commit=CommitId("a"), generation=1, owned=("milkrun/environment", "goat/commit", "goat/x")
    )
    store = Store({"goat/commit": msgspec.json.encode(wrong), "milkrun/environment": b"x", "goat/x": b""})
    pairs = store.pairs("")
    decision = plan_wish(GOAT, WISH, pairs, mark(2))
    assert isinstance(decision, Change)
    assert decision.deletes == ["goat/x"]


def test_a_mark_that_cannot_be_read_is_replaced_under_its_guard():
    store = Store({"goat/commit": b"{"})
    assert isinstance(sync(store, WISH, 7), Change)


def test_too_much_at_once_is_refused_and_nothing_is_changed():
    def many(prefix: str) -> Wish:
        return Wish(
            versions={
                VersionName(f"{prefix}{number}"): VersionWish(weight=1.0, replicas=1)
                for number in range(VERSIONS_AT_MOST)
            }
        )

    store = Store()
    sync(store, many("a"), 1)
    before = store.values()
    decision = sync(store, many("b"), 2)
    assert isinstance(decision, Held)
    assert decision.refused
    assert store.values() == before


numbers = st.one_of(st.none(), st.integers(0, 100).map(float), st.floats(0, 1e15, allow_nan=False))
fields = st.builds(VersionWish, weight=numbers, replicas=st.one_of(st.none(), st.integers(0, 9))).filter(
    lambda wish: wish != VersionWish()
)
wishes = st.builds(
    Wish,
    versions=st.dictionaries(
        st.sampled_from([f"0.0.{n}" for n in range(30)]), fields, max_size=VERSIONS_AT_MOST
    ),
    maintenance=st.booleans(),
)
foreign = st.dictionaries(
    st.sampled_from(["goat/feed", "goat/version=9/weight", "goat/version=0.0.1/note", "goat", "goatee/x"]),
    st.binary(max_size=3),
)


@given(foreign, st.lists(st.one_of(wishes, st.none()), min_size=1, max_size=5))
def test_the_registry_says_what_git_says_and_foreign_keys_stay(start, history):
    store = Store(start)
    says: Wish | None = None
    for generation, wish in enumerate(history, start=1):
        decision = sync(store, wish, generation)
        if isinstance(decision, Change):
            assert len(decision.puts) + len(decision.deletes) + 2 <= OPERATIONS_AT_MOST
            assert all(key.startswith("goat/") for key in (*decision.puts, *decision.deletes))
        if not isinstance(decision, Held):
            says = wish
        left = {key: value for key, value in store.values().items() if key in start}
        assert left == start
        found = {key: value for key, value in store.values().items() if key not in start}
        found.pop("goat/commit", None)
        assert found == (wish_keys(GOAT, says) if says else {})


@given(wishes)
def test_what_is_written_is_read_back_as_the_wish(wish):
    store = Store()
    sync(store, wish, 1)
    read = catalog.wish(GOAT, store.pairs("goat/"))
    assert read == msgspec.structs.replace(wish, versions=dict(sorted(wish.versions.items())), mark=mark(1))


def published(command: str, generation: int) -> PublishedService:
    return PublishedService(mark=mark(generation), settings=ServiceSettings(command=[command]))


def stored(key: str, published: PublishedService) -> Pair:
    return Store({key: msgspec.json.encode(published)}).pairs("")[0]


def test_settings_are_published_when_they_change_and_never_by_an_older_commit():
    key = keys.service_settings(GOAT)
    first = plan_published(key, published("a", 1), None)
    assert isinstance(first, Change)
    assert first.index == 0
    there = stored(key, published("a", 4))
    assert plan_published(key, published("a", 9), there) == InSync()
    assert plan_published(key, published("a", 2), there) == InSync()
    assert isinstance(plan_published(key, published("b", 5), there), Change)
    assert isinstance(plan_published(key, published("b", 3), there), Held)
    assert isinstance(plan_unpublished(there, mark(5), PublishedService), Change)
    assert isinstance(plan_unpublished(there, mark(3), PublishedService), Held)
    broken = pair(key, b"{}", 3)
    assert isinstance(plan_published(key, published("b", 3), broken), Change)
