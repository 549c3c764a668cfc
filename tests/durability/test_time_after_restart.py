"""A registry that was away longer than a TTL ends nothing at its start: each check and session has its time anew.

`MILKRUN_SOAK=1` also stays away longer than the shortest session may last, which is twenty seconds.
"""

from __future__ import annotations

import asyncio
import os

from milkrun.consul import wire

SOAK = os.environ.get("MILKRUN_SOAK") == "1"
TTL_S = 2
AWAY_S = 21 if SOAK else TTL_S + 0.5
CHECKS = 20


def registration(number: int) -> wire.Registration:
    check = wire.TtlCheck(check_id=f"alive-{number}", name="alive", ttl=f"{TTL_S}s")
    return wire.Registration(
        id=f"goat-{number}", name="goat", address="127.0.0.1", port=8000 + number, check=check
    )


async def statuses(registry) -> dict[str, str]:
    entries, _ = await registry.health("goat")
    return {
        check.check_id: check.status
        for entry in entries
        for check in entry.checks
        if "alive" in check.check_id
    }


async def test_checks_and_sessions_have_their_whole_time_again(serving, tmp_path):
    async with serving(tmp_path) as running:
        registry = running.registry
        for number in range(CHECKS):
            await registry.register(registration(number))
            await registry.report(f"alive-{number}", "passing", "well")
        session = await registry.create_session("me", ttl_s=10, behavior="delete", lock_delay_s=0)
        assert await registry.put("held", b"1", acquire=session)
        before = await statuses(registry)
        running.process.kill()
        await running.process.wait()
    assert set(before.values()) == {"passing"}
    await asyncio.sleep(AWAY_S)  # every TTL runs out meanwhile: that time passes is what this is about
    async with serving(tmp_path) as running:
        registry = running.registry
        assert await statuses(registry) == before, "some had expired at the start"
        held = await registry.get("held")
        assert held is not None
        assert held.session == session
        assert await registry.renew_session(session)
        # Who goes on reporting stays; who does not is told as expired, by the same clock.
        async with asyncio.timeout(60):
            while (now := await statuses(registry))["alive-1"] == "passing":
                await registry.report("alive-0", "passing", "still here")
                await asyncio.sleep(0.1)
        assert now["alive-0"] == "passing"
