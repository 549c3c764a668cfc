"""The same faults under the whole registry: what a client was told is so, and the process says why it ended."""

from __future__ import annotations

import pytest

from milkrun.consul.client import kv_set
from milkrun.errors import MilkrunError

pytestmark = pytest.mark.needs("strace")


def under_strace(folder, call, what, nth):
    """The registry's nth call of this name, on its write-ahead log, fails or is its last. It stays our child."""
    trace = folder.parent / "trace"
    inject = (
        f"inject={call}:{what}:when={nth}+"
        if what.startswith("error")
        else f"inject={call}:{what}:when={nth}"
    )
    return ("strace", "-D", "-f", "-o", str(trace), "-P", f"{folder}/registry.db-wal", "-e", inject)


async def write_pairs(registry, told):
    """Pairs of keys in transactions; ends when one is not acknowledged."""
    for number in range(10_000):
        told["begun"] = number
        value = str(number).encode()
        try:
            await registry.txn([kv_set(f"left/{number:04}", value), kv_set(f"right/{number:04}", value)])
        except MilkrunError as error:
            told["why"] = str(error)
            return
        told["acked"] = number


async def assert_pairs(serving, folder, told):
    async with serving(folder) as running:
        left = [each.data for each in await running.registry.entries("left/")]
        right = [each.data for each in await running.registry.entries("right/")]
    assert left == right, "a transaction is half there"
    last = [told["acked"], told["begun"]]
    assert left in [[str(number).encode() for number in range(end + 1)] for end in last]


@pytest.mark.parametrize("nth", [12, 40])
async def test_a_failed_sync_ends_the_registry_with_the_reason(serving, tmp_path, nth):
    folder, told = tmp_path / "data", {"acked": -1}
    async with serving(folder, within=under_strace(folder, "fdatasync", "error=EIO", nth)) as running:
        await write_pairs(running.registry, told)
        assert await running.ended() == 1
    assert told["acked"] >= 1
    assert "cannot be written or read" in told["why"]
    assert "the disk failed; the registry ends" in running.log
    assert "check the disk (dmesg, df), then start it again" in running.log
    assert "Traceback" not in running.log
    await assert_pairs(serving, folder, told)


@pytest.mark.parametrize(("call", "nth"), [("pwrite64", 61), ("pwrite64", 150), ("fdatasync", 33)])
async def test_a_kill_in_the_middle_of_a_commit_is_survived_by_all_that_was_acknowledged(
    serving, tmp_path, call, nth
):
    folder, told = tmp_path / "data", {"acked": -1}
    async with serving(folder, within=under_strace(folder, call, "signal=SIGKILL", nth)) as running:
        await write_pairs(running.registry, told)
        assert await running.ended() == -9
    assert told["acked"] >= 1
    await assert_pairs(serving, folder, told)
