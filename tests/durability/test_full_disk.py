"""A disk that is really full: writes are refused with the reason, reads go on, and room is all that it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from milkrun.errors import RegistryRefused

pytestmark = pytest.mark.needs("tmpfs")

MOUNT = 'mount -t tmpfs -o size=6m none "$0" && echo mounted && cat'
VALUE = b"x" * 4000


class SmallDisk:
    """A file system of 6 MB that only this process's children see."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.within = ("nsenter", "-m", "-t", str(holder))
        self.data = folder / "data"
        self._filler = Path(f"/proc/{holder}/root{folder}/filler")

    def fill(self) -> None:
        """There is no room for one byte more."""
        with self._filler.open("wb", buffering=0) as filler:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(bytes(size)):
                        pass

    def make_room(self) -> None:
        self._filler.unlink()


@contextlib.asynccontextmanager
async def small_disk(folder: Path) -> AsyncIterator[SmallDisk]:
    folder.mkdir()
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "-m", "sh", "-c", MOUNT, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert holder.stdout
        assert await holder.stdout.readline() == b"mounted\n"
        yield SmallDisk(folder, holder.pid)
    finally:
        assert holder.stdin
        holder.stdin.close()  # `cat` ends by that, and the file system goes with it
        await holder.wait()


async def put_until_refused(registry, name: str, written: dict[str, bytes]) -> tuple[int, str]:
    """Keys are written until one is refused: with what status, and why."""
    for number in range(10_000):
        key = f"{name}/{number:04}"
        try:
            await registry.put(key, VALUE)
        except RegistryRefused as refusal:
            return refusal.status, str(refusal)
        written[key] = VALUE
    raise AssertionError("the disk never was full")


async def held(registry) -> dict[str, bytes]:
    return {each.key: each.data for each in await registry.entries("")}


async def test_writes_are_refused_reads_go_on_and_writes_are_taken_when_there_is_room(serving, tmp_path):
    written: dict[str, bytes] = {}
    async with small_disk(tmp_path / "disk") as disk:
        async with serving(disk.data, within=disk.within) as running:
            registry = running.registry
            for number in range(200):
                await registry.put(f"before/{number}", VALUE)
                written[f"before/{number}"] = VALUE
            disk.fill()
            for name in ("first", "second"):
                status, why = await put_until_refused(registry, name, written)
                assert status == 500
                assert "is full: nothing was written" in why
                assert await held(registry) == written
            disk.make_room()
            await registry.put("after", b"1")
            written["after"] = b"1"
            disk.fill()
            await put_until_refused(registry, "third", written)
            assert running.process.returncode is None
            assert running.log.count("Traceback") == 0
        async with serving(disk.data, within=disk.within) as running:
            assert await held(running.registry) == written, "killed, and started on the full disk"
            await put_until_refused(running.registry, "fourth", written)
            disk.make_room()
            await running.registry.put("last", b"1")
            written["last"] = b"1"
        async with serving(disk.data, within=disk.within) as running:
            assert await held(running.registry) == written
