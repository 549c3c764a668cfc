from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry import kv
from milkrun.registry.kv import TOMBSTONES_AT_MOST, KeyValues
from milkrun.registry.ledger import Ledger

KEYS = st.text(alphabet="ab/é", min_size=1, max_size=4)


class Model:
    """What a table of keys, and of when each was last changed, would say."""

    def __init__(self) -> None:
        self.values: dict[str, bytes | None] = {}
        self.changed: dict[str, int] = {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "cas", "delete", "tree"]), KEYS, st.binary(max_size=1)), max_size=40
    )
)
def test_as_a_plain_table_would_say(steps):
    ledger = Ledger()
    store, model = KeyValues(ledger), Model()
    for what, key, value in steps:
        ledger.begin()
        index = ledger.index
        if what == "put":
            changes = {key} if key not in model.values or model.values[key] != (value or None) else set()
            kv.put(store, key, value, 0)
            model.values[key] = value or None
        elif what == "cas":
            wanted = store.get(key).modify_index if store.get(key) else 0
            assert kv.cas(store, key, value, 0, wanted + 1) is None
            changes = {key} if key not in model.values or model.values[key] != (value or None) else set()
            assert kv.cas(store, key, value, 0, wanted) is not None
            model.values[key] = value or None
        else:
            changes = {
                each for each in model.values if each == key or (what == "tree" and each.startswith(key))
            }
            kv.delete(store, key) if what == "delete" else kv.delete_tree(store, key)
            for each in changes:
                del model.values[each]
        assert ledger.index == index + bool(changes)
        model.changed |= dict.fromkeys(changes, ledger.index)
        assert {each.key: each.value for each in store.under("")} == model.values
        assert [each.key for each in store.under("")] == sorted(model.values)
        for prefix in ("", key[:1], key):
            under = [each for each in sorted(model.values) if each.startswith(prefix)]
            assert [each.key for each in store.under(prefix)] == under
            # The index of a prefix moves exactly when something below it changes.
            assert store.index_under(prefix) == max(
                [1, *(at for each, at in model.changed.items() if each.startswith(prefix))]
            )
        assert store.index_of(key) == model.changed.get(key, 1)


def test_names_are_cut_after_the_separator():
    ledger = Ledger()
    store = KeyValues(ledger)
    for key in ("a", "b/c", "b/d/e", "b/d/f", "c//"):
        ledger.begin()
        kv.put(store, key, b"", 0)
    assert store.names("", "") == ["a", "b/c", "b/d/e", "b/d/f", "c//"]
    assert store.names("", "/") == ["a", "b/", "c/"]
    assert store.names("b", "/") == ["b/"]
    assert store.names("b/", "/") == ["b/c", "b/d/"]
    assert store.names("b/", "d/") == ["b/c", "b/d/"]


def test_an_index_never_goes_back_when_tombstones_are_dropped():
    ledger = Ledger()
    store = KeyValues(ledger)
    seen = 1
    for number in range(TOMBSTONES_AT_MOST + 10):
        ledger.begin()
        kv.put(store, f"{number}", b"1", 0)
        ledger.begin()
        kv.delete(store, f"{number}")
        assert store.index_of("0") >= seen or number == 0
        seen = store.index_of("0")
    assert store.index_of("0") > 3
    assert len(store._tombstones) == len(store._buried) < TOMBSTONES_AT_MOST


def test_a_lock_counts_its_takers():
    ledger = Ledger()
    store = KeyValues(ledger)
    for number in range(1, 4):
        ledger.begin()
        assert kv.lock(store, "k", b"", 0, "me").lock_index == number
        assert kv.lock(store, "k", b"", 0, "me").lock_index == number
        assert kv.lock(store, "k", b"", 0, "you") is None
        assert store.held == {"me": {"k"}}
        assert kv.unlock(store, "k", b"", 0, "you") is None
        assert kv.unlock(store, "k", b"", 0, "me").lock_index == number
        assert store.held == {}
