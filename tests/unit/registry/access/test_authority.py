"""Each asker has the authority of the token that they show, of having none, or none at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.access.authority import ALL, REMEMBERED_AT_MOST, Gate, Mode, is_local
from milkrun.registry.access.rules import Resource
from milkrun.registry.access.tokens import (
    ANONYMOUS_ID,
    MANAGEMENT_ID,
    OWN_ID,
    Policy,
    Token,
    Tokens,
    digest_of,
)
from milkrun.registry.ledger import Ledger
from milkrun.registry.refusal import Refused

OWN = b"own-secret-own-secret-own-secret-"
SHOP = b"shop-secret-shop-secret-shop-secre"


@pytest.fixture
def tokens() -> Tokens:
    found = Tokens(Ledger())
    found.put_policy(Policy(id="p1", name="shop", text='key_prefix "shop/" { policy = "write" }'))
    found.put_token(Token(accessor="t1", digest=digest_of(SHOP), policies=["p1"]))
    return found


def gate(mode: Mode = Mode.DEFAULT) -> Gate:
    return Gate(mode, digest_of(OWN))


@pytest.mark.parametrize("mode", [Mode.DEFAULT, Mode.CLOSED])
@pytest.mark.parametrize("local", [True, False])
def test_a_token_is_worth_its_rules_wherever_it_is_shown(tokens, mode, local):
    who = gate(mode).authority(tokens, SHOP, local=local)

    assert who.accessor == "t1"
    assert who.writes(Resource.KEY, "shop/a")
    assert not who.reads(Resource.KEY, "other")
    assert not who.reads(Resource.SERVICE, "goat"), "a token that is shown has no share in what none may do"
    own = gate(mode).authority(tokens, OWN, local=local)
    assert own.accessor == OWN_ID
    assert own.writes_all


@pytest.mark.parametrize(
    ("mode", "local", "reads"),
    [
        (Mode.DEFAULT, True, True),
        (Mode.DEFAULT, False, False),
        (Mode.CLOSED, True, False),
        (Mode.CLOSED, False, False),
    ],
)
def test_without_a_token_this_machine_reads_in_default_mode_only(tokens, mode, local, reads):
    who = gate(mode).authority(tokens, b"", local=local)

    assert who.reads(Resource.SERVICE, "goat") is reads
    assert not any(who.writes(resource, "x") for resource in Resource)
    assert not who.reads(Resource.ACL, "")


def test_what_was_remembered_of_one_on_this_machine_is_not_for_one_elsewhere(tokens):
    door = gate(Mode.DEFAULT)

    for _ in range(2):
        assert door.authority(tokens, b"", local=True).reads(Resource.SERVICE, "goat")
        assert not door.authority(tokens, b"", local=False).reads(Resource.SERVICE, "goat")


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("secret", [b"unknown", b"", OWN, SHOP])
def test_when_access_is_open_nobody_is_asked(tokens, secret, local):
    assert gate(Mode.OPEN).authority(tokens, secret, local=local) is ALL
    assert Gate().authority(tokens, secret, local=local) is ALL


@given(st.binary(min_size=1, max_size=50))
def test_a_secret_that_nobody_has_is_refused(secret):
    for mode in (Mode.DEFAULT, Mode.CLOSED):
        with pytest.raises(Refused) as refused:
            gate(mode).authority(Tokens(Ledger()), secret, local=True)
        assert (refused.value.status, refused.value.message) == (403, "ACL not found")


@pytest.mark.parametrize(
    "secret", [digest_of(SHOP).encode(), digest_of(OWN).encode(), SHOP + b" ", SHOP[:-1]]
)
def test_what_is_kept_of_a_secret_is_no_secret(tokens, secret):
    with pytest.raises(Refused):
        gate().authority(tokens, secret, local=True)


def test_a_gate_without_an_own_token_takes_none():
    with pytest.raises(Refused):
        Gate(Mode.CLOSED).authority(Tokens(Ledger()), b"x", local=True)


def test_what_changes_counts_from_the_next_request_on(tokens):
    door = gate(Mode.CLOSED)
    assert door.authority(tokens, SHOP, local=True).writes(Resource.KEY, "shop/a")

    tokens.put_policy(Policy(id="p1", name="shop", text='key_prefix "shop/" { policy = "read" }'))
    narrowed = door.authority(tokens, SHOP, local=True)
    assert narrowed.reads(Resource.KEY, "shop/a")
    assert not narrowed.writes(Resource.KEY, "shop/a")

    tokens.drop_policy("p1")
    assert not door.authority(tokens, SHOP, local=True).reads(Resource.KEY, "shop/a")

    tokens.put_token(Token(accessor=ANONYMOUS_ID, digest="", services=["goat"]))
    assert door.authority(tokens, b"", local=False).writes(Resource.SERVICE, "goat")

    tokens.drop_token("t1")
    with pytest.raises(Refused):
        door.authority(tokens, SHOP, local=True)


def test_a_token_of_all_may_do_all(tokens):
    tokens.put_token(Token(accessor="t2", digest=digest_of(b"m" * 40), policies=[MANAGEMENT_ID]))
    who = gate(Mode.CLOSED).authority(tokens, b"m" * 40, local=False)

    assert who.writes_all
    assert who.reads_all


def test_another_machines_tokens_are_asked_anew(tokens):
    """A write that the disk refused gives the engine another machine: its tokens may be others."""
    door = gate()
    assert door.authority(tokens, SHOP, local=True).accessor == "t1"
    other = Tokens(Ledger())
    other.version = tokens.version

    with pytest.raises(Refused):
        door.authority(other, SHOP, local=True)


def test_what_is_remembered_has_an_end():
    known = Tokens(Ledger())
    known.load(
        [Token(accessor=str(n), digest=digest_of(b"%040d" % n)) for n in range(REMEMBERED_AT_MOST + 10)]
    )
    door = gate()

    for number in range(REMEMBERED_AT_MOST + 10):
        assert door.authority(known, b"%040d" % number, local=True).accessor == str(number)
    assert len(door._known) <= REMEMBERED_AT_MOST


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("12.7.0.1", False),
        ("::ffff:10.0.0.127", False),
        ("::10", False),
        ("::", False),
        ("0.0.0.0", False),
        ("1270.0.0.1", False),
        ("", False),
    ],
)
def test_local_is_who_comes_over_loopback(peer, local):
    assert is_local(peer) is local


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_token_that_expired_is_none_from_that_moment_on(tokens, asked_before):
    clock = [99.9]
    tokens.put_token(Token(accessor="t1", digest=digest_of(SHOP), policies=["p1"], expires=100.0))
    door = Gate(Mode.DEFAULT, digest_of(OWN), lambda: clock[0])
    if asked_before:
        assert door.authority(tokens, SHOP, local=True).writes(Resource.KEY, "shop/a")

    clock[0] = 100.0
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            door.authority(tokens, SHOP, local=True)
        assert refused.value.status == 403
