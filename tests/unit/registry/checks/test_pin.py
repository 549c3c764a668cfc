"""Names are resolved once, and only what was judged is given on; the resolver here is the attacker's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.registry.checks.pin import ADDRESSES_AT_MOST, pinned, system_names
from milkrun.registry.checks.reach import Reach, parse
from milkrun.registry.checks.target import Target
from milkrun.registry.checks.verdict import Failed

REACH = Reach(door=("127.0.0.1", 8500))


def rebinding(*answers):
    """A resolver with another answer each time, and the questions that it got."""
    asked = []

    async def resolve(host, port):
        asked.append(host)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    return resolve, asked


async def pin(host, resolve, own="10.1.1.1", reach=REACH):
    return await pinned(Target(host, 80), own=own, reach=reach, resolve=resolve)


async def test_a_literal_address_is_asked_of_nobody():
    resolve, asked = rebinding(["10.9.9.9"])
    assert await pin("127.0.0.1", resolve) == ["127.0.0.1"]
    assert asked == []


async def test_a_name_is_resolved_once_and_pinned():
    resolve, asked = rebinding(["127.0.0.1"], ["169.254.169.254"])
    assert await pin("rebind.example", resolve) == ["127.0.0.1"]
    assert asked == ["rebind.example"]


async def test_of_several_addresses_only_the_permitted_ones_are_used():
    resolve, _ = rebinding(["169.254.169.254", "10.2.2.2", "10.1.1.1", "::ffff:127.0.0.1", "127.0.0.1"])
    assert await pin("mixed.example", resolve) == ["10.1.1.1", "127.0.0.1"]


@pytest.mark.parametrize(
    "answer", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "10.2.2.2", "0.0.0.0"]
)
async def test_a_name_for_a_forbidden_address_is_refused(answer):
    resolve, _ = rebinding([answer])
    found = await pin("evil.example", resolve)
    assert isinstance(found, Failed)
    assert "checks" in found.why


@pytest.mark.parametrize(
    "host", ["2852039166", "0251.0376.0251.0376", "0xa9fea9fe", "169.254.43518", "0xa9.0xfe.0xa9.0xfe"]
)
async def test_other_spellings_of_an_address_are_judged_by_what_the_system_makes_of_them(host):
    """This machine's real resolver reads them all as 169.254.169.254."""
    everything = Reach(allowed=parse(("0.0.0.0/0",)), door=("127.0.0.1", 8500))
    found = await pin(host, system_names, reach=everything)
    assert isinstance(found, Failed)
    assert "169.254.169.254: it is a link-local address" in found.why


async def test_other_spellings_of_loopback_are_loopback():
    assert await pin("127.1", system_names) == ["127.0.0.1"]
    assert await pin("2130706433", system_names) == ["127.0.0.1"]


@pytest.mark.parametrize("answer", [OSError("no such host"), [], ["not an address"]])
async def test_a_name_without_an_address(answer):
    resolve, _ = rebinding(answer)
    assert await pin("gone.example", resolve) == Failed("dial tcp: lookup gone.example: no such host")


async def test_a_name_with_a_thousand_addresses_is_tried_at_a_few():
    resolve, _ = rebinding([f"127.0.{number // 256}.{number % 256}" for number in range(1000)])
    assert len(await pin("many.example", resolve)) == ADDRESSES_AT_MOST


@given(st.lists(st.ip_addresses().map(str), max_size=5))
async def test_whatever_a_resolver_says_only_permitted_addresses_come_out(answers):
    resolve, _ = rebinding(answers)
    found = await pin("any.example", resolve)
    if not isinstance(found, Failed):
        assert all(address.startswith("127.") or address in ("::1", "10.1.1.1") for address in found)
