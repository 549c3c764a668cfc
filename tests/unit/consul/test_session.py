"""Whose session is not known to live may not act on what it locked."""

from __future__ import annotations

import pytest

from milkrun.consul import Address, Registry, Session
from milkrun.consul import session as module
from milkrun.consul.session import TTL_S


def test_it_is_safe_from_its_last_renewal_for_one_ttl_and_never_before_one(monkeypatch: pytest.MonkeyPatch):
    now = 1_000_000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    session = Session(
        Registry(Address()), "agent", behavior="delete", resume="9f38f730-f976-4a35-aadb-7a4a7c824bff"
    )
    assert not session.safe
    session._renewed = now
    assert session.safe
    now += TTL_S - 0.01
    assert session.safe
    now += 0.02
    assert not session.safe
    session._renewed, session.id = now, ""
    assert not session.safe
