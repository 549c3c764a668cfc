from __future__ import annotations

import asyncio
import random
import stat
import sys

import pytest

from milkrun.consul import Address, Registry
from milkrun.registry.http.message import DRAINED_BYTES_AT_MOST
from milkrun.registry.server import running


@pytest.fixture
async def url(tmp_path):
    async with running(("127.0.0.1", 0), tmp_path / "data", node="n1") as (_, (host, port)):
        yield f"http://{host}:{port}"


async def milkrun(*arguments):
    command = [sys.executable, "-m", "milkrun", "registry", "snapshot", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_saved_and_restored_also_over_a_restart(tmp_path, url):
    file = tmp_path / "farm.snapshot"
    async with Registry(Address(url=url)) as registry:
        await registry.put("a", b"1")
        assert (await milkrun("save", file, "--registry", url))[0] == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        await registry.put("a", b"2")
        await registry.put("b", b"2")
        assert (await milkrun("restore", file, "--registry", url))[0] == 0
        assert [(each.key, each.value) for each in await registry.entries("")] == [("a", b"1")]
    async with running(("127.0.0.1", 0), tmp_path / "other", node="n2") as (_, (host, port)):
        other = f"http://{host}:{port}"
        assert (await milkrun("restore", file, "--registry", other))[0] == 0
    async with (
        running(("127.0.0.1", 0), tmp_path / "other", node="n2") as (_, (host, port)),
        Registry(Address(url=f"http://{host}:{port}")) as registry,
    ):
        assert [(each.key, each.value) for each in await registry.entries("")] == [("a", b"1")]


async def test_a_state_larger_than_any_other_body(tmp_path, url):
    file = tmp_path / "farm.snapshot"
    async with Registry(Address(url=url)) as registry:
        values = [(f"{number}", random.Random(number).randbytes(500_000)) for number in range(20)]
        for key, value in values:
            await registry.put(key, value)
        assert (await milkrun("save", file, "--registry", url))[0] == 0
        assert file.stat().st_size > DRAINED_BYTES_AT_MOST
        await registry.put("0", b"2")
        assert (await milkrun("restore", file, "--registry", url))[0] == 0
        assert [(each.key, each.value) for each in await registry.entries("")] == sorted(values)


async def test_a_file_that_is_not_ours_is_refused_by_name(tmp_path, url):
    file = tmp_path / "notes.txt"
    file.write_text("milk the goats")
    status, said = await milkrun("restore", file, "--registry", url)
    assert status == 8
    assert (
        f"{file}: the snapshot is refused: it is no snapshot of a Milkrun registry; nothing was changed"
        in said
    )
    status, said = await milkrun("restore", tmp_path / "nowhere", "--registry", url)
    assert status == 8
    assert "cannot be read" in said


async def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path, url):
    status, said = await milkrun("save", tmp_path / "nowhere" / "file", "--registry", url)
    assert status == 8
    assert "cannot be written" in said


async def test_a_registry_that_is_away_is_said(tmp_path):
    status, _ = await milkrun("save", tmp_path / "file", "--registry", "http://127.0.0.1:9")
    assert status == 6
    assert not (tmp_path / "file").exists()
