import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from milkrun.consul import Address, Registry, Session, catalog, keys
from milkrun.errors import InputRefused, NotFound
from milkrun.gitsync import daemon, tree
from milkrun.gitsync.publish import LostLock, Outcome, Publisher
from milkrun.model import CommitMark, ServiceName, SyncReport, VersionName, Wish
from milkrun.repository import Repository, commit_file
from milkrun.settings.environment import PublishedEnvironment
from milkrun.settings.service import PublishedService
from milkrun.testing.registry import embedded_registry

GOAT = ServiceName("goat")
FARMER = ServiceName("farmer")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True)
    return done.stdout.decode().strip()


def commit(folder: Path, **files: str | None) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json").replace("_toml", ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "x")
    return git(folder, "rev-parse", "HEAD")


def weights(first: float, second: float) -> str:
    return f'{{\n"version=0.0.1": {{"weight": {first}, "replicas": 2}},\n"version=0.0.2": {{"weight": {second}}}\n}}\n'


@pytest.fixture
def farm(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "heidi")
    folder = tmp_path / "farm"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", ".")
    commit(
        folder,
        milkrun_toml='name = "farm"\n',
        services__goat_toml='command = ["goat"]\n',
        deploy__goat_json=weights(80, 20),
        deploy__farmer_json=weights(50, 50),
    )
    return folder


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with embedded_registry(tmp_path / "registry") as address, Registry(address) as registry:
        yield registry


@contextlib.asynccontextmanager
async def gitsync(address: Address, repository: Path | str, state: Path) -> AsyncIterator[asyncio.Task[None]]:
    """gitsync runs meanwhile, and ends cleanly."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(
            daemon.run(
                address, repository=repository, branch="main", state_dir=state, host="stable", poll_s=0.05
            )
        )
        try:
            yield task
        finally:
            task.cancel()


async def until(registry: Registry, holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for the registry to change until `holds`."""
    async with asyncio.timeout(15):
        index = 1
        while not await holds():
            answer = await registry.ask(
                "GET", "/v1/kv/", params={"recurse": "", "index": str(index), "wait": "2s"}, accept=(200, 404)
            )
            index = answer.index


async def wish(registry: Registry, service: ServiceName = GOAT) -> Wish:
    return catalog.wish(service, await registry.entries(keys.wish_prefix(service)))


async def report(registry: Registry) -> SyncReport | None:
    pair = await registry.get(keys.SYNC_REPORT)
    return msgspec.json.decode(pair.data, type=SyncReport) if pair else None


async def reported(registry: Registry, commit: str, *, trouble: str = "") -> SyncReport:
    async def holds() -> bool:
        said = await report(registry)
        return said is not None and said.commit == commit and trouble in said.trouble

    await until(registry, holds)
    found = await report(registry)
    assert found
    return found


async def test_a_commit_becomes_the_registrys_keys(farm, registry, tmp_path):
    head = git(farm, "rev-parse", "HEAD")
    async with gitsync(registry.address, farm, tmp_path / "state"):
        said = await reported(registry, head)
        assert (said.generation, said.refused, said.trouble) == (1, [], "")
        goat = await wish(registry)
        assert goat.weights == {"0.0.1": 80, "0.0.2": 20}
        assert goat.mark.commit == head
        environment = await registry.get(keys.ENVIRONMENT)
        assert msgspec.json.decode(environment.data, type=PublishedEnvironment).settings.name == "farm"
        service = await registry.get(keys.service_settings(GOAT))
        assert msgspec.json.decode(service.data, type=PublishedService).settings.command == ["goat"]
        assert [row.service.id for row in (await registry.health(ServiceName("milkrun-gitsync")))[0]]
        repository = await Repository.open(farm)
        second = await commit_file(
            repository, "main", "deploy/goat.json", weights(10, 90).encode(), "x", parent=head
        )
        await reported(registry, second)
        for service in (GOAT, FARMER):
            assert (await wish(registry, service)).mark.commit == second
        assert (await wish(registry)).weights == {"0.0.1": 10, "0.0.2": 90}
    assert await report(registry) is None
    assert (await registry.health(ServiceName("milkrun-gitsync")))[0] == []
    assert (await wish(registry)).weights == {"0.0.1": 10, "0.0.2": 90}


async def test_all_keys_of_a_service_change_at_once(farm, registry, tmp_path):
    """A watcher of the service's keys sees each commit's weights whole: they always add up to 100."""
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, git(farm, "rev-parse", "HEAD"))
        seen: list[tuple[dict[VersionName, float], str]] = []

        async def watch() -> None:
            index = 1
            while True:
                answer = await registry.ask(
                    "GET", "/v1/kv/goat/", params={"recurse": "", "index": str(index), "wait": "5s"}
                )
                index = answer.index
                found = await wish(registry)
                seen.append((found.weights, found.mark.commit))

        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watch())
            marks = {}
            for share in range(1, 9):
                head = commit(farm, deploy__goat_json=weights(share, 100 - share))
                marks[head] = share
                await reported(registry, head)
            watcher.cancel()
    assert seen
    assert all(sum(found.values()) == 100 for found, _ in seen)
    assert all(found["0.0.1"] == marks[head] for found, head in seen if head in marks)


async def test_a_bad_file_keeps_its_service_and_only_its_service(farm, registry, tmp_path):
    first = git(farm, "rev-parse", "HEAD")
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, first)
        bad = commit(
            farm,
            deploy__goat_json=weights(-1, 2),
            deploy__farmer_json=weights(1, 2),
            services__goat_toml="comand = []",
        )
        said = await reported(registry, bad)
        assert [(refusal.file, refusal.line) for refusal in said.refused] == [
            ("deploy/goat.json", 2),
            ("services/goat.toml", 1),
        ]
        assert "from 0 up" in said.refused[0].reason
        goat, farmer = await wish(registry), await wish(registry, FARMER)
        assert (goat.weights["0.0.1"], goat.mark.commit) == (80, first)
        assert (farmer.weights["0.0.1"], farmer.mark.commit) == (1, bad)
        assert await registry.get(keys.service_settings(GOAT))
        mended = commit(farm, deploy__goat_json=weights(3, 4), services__goat_toml='command = ["x"]')
        assert (await reported(registry, mended)).refused == []
        assert (await wish(registry)).weights["0.0.1"] == 3


@pytest.mark.parametrize(
    "named", ['secrets = { DATABASE = "keys/database" }', 'migration = { url_file = "keys/database" }']
)
async def test_a_secret_that_git_tracks_is_refused_until_it_is_not(farm, registry, tmp_path, named):
    text = f'command = ["goat"]\n{named}\n'
    (farm / "keys").mkdir()
    (farm / "keys" / "database").write_text("swordfish")
    leaked = commit(farm, services__goat_toml=text)
    async with gitsync(registry.address, farm, tmp_path / "state"):
        report = await reported(registry, leaked)
        [refusal] = report.refused
        assert (refusal.file, refusal.line) == ("services/goat.toml", 2)
        assert "keys/database, which git tracks" in refusal.reason
        assert await registry.get(keys.service_settings(GOAT)) is None
        git(farm, "rm", "-q", "--cached", "keys/database")
        mended = commit(farm, **{".gitignore": "/keys/\n"})
        assert (await reported(registry, mended)).refused == []
        pair = await registry.get(keys.service_settings(GOAT))
        assert pair
        published = msgspec.json.decode(pair.data, type=PublishedService)
        assert "keys/database" in (
            published.settings.secrets.get("DATABASE"),
            published.settings.migration.url_file,
        )


async def test_what_leaves_git_leaves_the_registry_but_never_all_of_it(farm, registry, tmp_path):
    await registry.put("goat/feed", b"hay")
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, git(farm, "rev-parse", "HEAD"))
        less = commit(farm, deploy__goat_json=None, services__cow_toml='command = ["cow"]')
        await reported(registry, less)
        assert [pair.key for pair in await registry.entries("goat/")] == ["goat/commit", "goat/feed"]
        empty = commit(farm, deploy__farmer_json=None)
        said = await reported(registry, empty)
        assert "deploy/: the commit" in said.trouble
        assert "(deploy/farmer.json)" in said.trouble
        assert (await wish(registry, FARMER)).mark.commit == less
        assert (await registry.get("goat/feed")).data == b"hay"
        back = commit(farm, deploy__farmer_json=weights(1, 1), services__goat_toml=None)
        assert (await reported(registry, back)).trouble == ""
        assert await registry.get(keys.service_settings(GOAT)) is None
        assert await registry.get(keys.service_settings(ServiceName("cow")))


async def test_keys_changed_by_hand_are_set_back(farm, registry, tmp_path, monkeypatch):
    monkeypatch.setattr(daemon, "REASSERT_S", 0.1)
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, git(farm, "rev-parse", "HEAD"))
        key = keys.weight(GOAT, VersionName("0.0.1"))
        await registry.put(key, b"0")
        await registry.put("goat/feed", b"hay")

        async def set_back() -> bool:
            pair = await registry.get(key)
            return pair is not None and pair.data == b"80"

        await until(registry, set_back)
        assert (await registry.get("goat/feed")).data == b"hay"


async def test_an_older_history_is_not_written_over_a_newer_one(farm, registry, tmp_path):
    first = git(farm, "rev-parse", "HEAD")
    second = commit(farm, deploy__goat_json=weights(1, 2))
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, second)
        git(farm, "reset", "-q", "--hard", first)
        said = await reported(registry, first, trouble="is not written over a newer one")
        assert said.trouble.startswith("deploy/farmer.json, deploy/goat.json: the registry has the commit")
        assert (await wish(registry)).mark.commit == second
        commit(farm)
        third = commit(farm, deploy__goat_json=weights(5, 6))
        assert (await reported(registry, third)).trouble == ""
        assert (await wish(registry)).weights["0.0.1"] == 5


async def test_only_one_gitsync_writes(farm, registry, tmp_path):
    """The other one waits until the first one's lock is free, and takes over."""
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(farm), str(other))
    async with gitsync(registry.address, farm, tmp_path / "state") as first:
        await reported(registry, git(farm, "rev-parse", "HEAD"))
        theirs = commit(other, deploy__goat_json=weights(7, 7))
        async with gitsync(registry.address, other, tmp_path / "state2"):
            ours = commit(farm, deploy__goat_json=weights(9, 9))
            await reported(registry, ours)
            assert (await wish(registry)).weights["0.0.1"] == 9
            first.cancel()
            await reported(registry, theirs)
            assert (await wish(registry)).weights["0.0.1"] == 7


async def test_a_gitsync_that_lost_its_lock_unawares_writes_nothing(farm, registry, tmp_path):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    files = await repository.files(head)
    wanted = tree.wanted(files, await repository.contents(files.values()), head)
    session = Session(registry, "one", behavior="delete")
    publisher = Publisher(registry, lambda: session.id)
    await session.ensure()
    await registry.put(keys.SYNC_REPORT, b"{}", acquire=session.id)
    await registry.put(keys.SYNC_REPORT, b"{}", release=session.id)
    with pytest.raises(LostLock):
        await publisher.publish(wanted, CommitMark(commit=head, generation=1))
    assert [pair.key for pair in await registry.entries("")] == [keys.SYNC_REPORT]
    await registry.put(keys.SYNC_REPORT, b"{}", acquire=session.id)
    await publisher.publish(wanted, CommitMark(commit=head, generation=1))
    assert (await wish(registry)).mark.commit == head


@pytest.mark.parametrize("before", [keys.ENVIRONMENT, "goat/commit"])
async def test_a_gitsync_that_stood_still_between_reading_and_writing_changes_nothing(
    farm, registry, tmp_path, before
):
    """I4: what was read is stale when it is written; the newer commit that came between stays."""
    repository = await Repository.open(farm)
    first = git(farm, "rev-parse", "HEAD")
    second = commit(farm, milkrun_toml='name = "new"', deploy__goat_json=weights(1, 2))
    session = Session(registry, "one", behavior="delete")
    await session.ensure()
    await registry.put(keys.SYNC_REPORT, b"{}", acquire=session.id)

    async def publish(through: Registry, head: str, generation: int) -> Outcome:
        files = await repository.files(head)
        wanted = tree.wanted(files, await repository.contents(files.values()), head)
        mark = CommitMark(commit=head, generation=generation)
        return await Publisher(through, lambda: session.id).publish(wanted, mark)

    class Stopping(Registry):
        stopped = False

        async def txn(self, operations):
            if not self.stopped and any(operation["KV"]["Key"] == before for operation in operations):
                self.stopped = True
                await publish(registry, second, 2)
            return await super().txn(operations)

    async with Stopping(registry.address) as stopping:
        outcome = await publish(stopping, first, 1)
    assert "older state" in outcome.trouble
    goat = await wish(registry)
    assert (goat.weights["0.0.1"], goat.mark.commit) == (1, second)
    environment = await registry.get(keys.ENVIRONMENT)
    assert msgspec.json.decode(environment.data, type=PublishedEnvironment).settings.name == "new"


async def test_git_in_trouble_leaves_the_registry_as_it_is(farm, registry, tmp_path):
    head = git(farm, "rev-parse", "HEAD")
    async with gitsync(registry.address, farm, tmp_path / "state"):
        await reported(registry, head)
        farm.rename(tmp_path / "away")
        said = await reported(registry, head, trouble="is gone")
        assert said.commit == head
        assert (await wish(registry)).mark.commit == head
        (tmp_path / "away").rename(farm)
        second = commit(farm, deploy__goat_json=weights(1, 2))
        assert (await reported(registry, second)).trouble == ""


async def test_a_remote_repository_is_followed_and_a_rewritten_one_is_not(farm, registry, tmp_path):
    commit(farm)
    async with gitsync(registry.address, f"file://{farm}", tmp_path / "state"):
        second = commit(farm, deploy__goat_json=weights(1, 2))
        await reported(registry, second)
        git(farm, "reset", "-q", "--hard", "HEAD~2")
        commit(farm, deploy__goat_json=weights(3, 4))
        said = await reported(registry, second, trouble="was rewritten")
        assert said.repository == f"file://{farm}"
        assert (await wish(registry)).weights["0.0.1"] == 1


async def test_a_registry_that_comes_back_empty_gets_everything_again(farm, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    async with contextlib.AsyncExitStack() as stack:
        async with embedded_registry(first) as address:
            await stack.enter_async_context(gitsync(address, farm, tmp_path / "state"))
            async with Registry(address) as registry:
                await reported(registry, git(farm, "rev-parse", "HEAD"))
        head = commit(farm, deploy__goat_json=weights(1, 2))
        async with embedded_registry_at(address, second), Registry(address) as registry:
            await reported(registry, head)
            assert (await wish(registry)).weights == {"0.0.1": 1, "0.0.2": 2}
            assert await registry.get(keys.ENVIRONMENT)
            await stack.aclose()


@contextlib.asynccontextmanager
async def embedded_registry_at(address: Address, data_dir: Path) -> AsyncIterator[None]:
    from milkrun.registry.server import running

    port = int(address.url.rpartition(":")[2])
    async with running(("127.0.0.1", port), data_dir, node="test-host"):
        yield


PROGRAM = """
import asyncio, sys
from pathlib import Path
from milkrun.consul import Address
from milkrun.gitsync import daemon
url, farm, state = sys.argv[1:]
asyncio.run(daemon.run(
    Address(url=url), repository=Path(farm), branch="main", state_dir=Path(state), host="stable"))
"""


async def test_a_killed_gitsync_goes_on_where_it_was(farm, registry, tmp_path):
    """kill -9, a commit, a start: the new one has the old one's session, so it waits for no lock."""

    @contextlib.asynccontextmanager
    async def killed_in_the_end() -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, registry.address.url, str(farm), str(tmp_path / "state")
        )
        try:
            yield
        finally:
            process.kill()
            await process.wait()

    async with killed_in_the_end():
        await reported(registry, git(farm, "rev-parse", "HEAD"))
        session = (await registry.get(keys.SYNC_REPORT)).session
    head = commit(farm, deploy__goat_json=weights(1, 2))
    async with killed_in_the_end():
        await reported(registry, head)
        assert (await registry.get(keys.SYNC_REPORT)).session == session
        assert (await wish(registry)).weights["0.0.1"] == 1


async def test_what_cannot_be_followed_at_all_ends_it_at_once(tmp_path):
    arguments = {"branch": "main", "state_dir": tmp_path / "state", "host": "stable"}
    with pytest.raises(NotFound):
        await daemon.run(Address(), repository=tmp_path, **arguments)
    with pytest.raises(InputRefused):
        await daemon.run(Address(), repository="http://127.0.0.1/farm", **arguments)
    assert not list((tmp_path / "state").iterdir())
