import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from milkrun.errors import Conflict, InputRefused, MilkrunError, NotFound, PartMissing, TimedOut
from milkrun.model import CommitId
from milkrun.repository import (
    Mirror,
    QuickReader,
    Repository,
    commit_file,
    create,
    is_remote,
    local_tips,
    mirrored_tips,
    tips,
)
from milkrun.repository import mirror as mirror_module
from milkrun.repository.git import Git

GOAT = b'{"version=0.0.1": {"weight": 1}}\n'


def git(folder: Path, *arguments: str, stdin: str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Heidi",
        "GIT_AUTHOR_EMAIL": "heidi@example.org",
        "GIT_COMMITTER_NAME": "Heidi",
        "GIT_COMMITTER_EMAIL": "heidi@example.org",
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=environment, input=stdin.encode(), capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.decode(errors="replace").strip()


def running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def write(folder: Path, path: str, data: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    folder = tmp_path / "farm"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", ".")
    write(folder, "milkrun.toml", b'name = "farm"\n')
    write(folder, "deploy/goat.json", GOAT)
    write(folder, "apps/goat.py", b"print()\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")
    return folder


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


# Opening


async def test_a_folder_inside_a_repository_is_not_one_itself(farm):
    with pytest.raises(NotFound, match="not a git repository of its own"):
        await Repository.open(farm / "deploy")


async def test_a_git_directory_with_a_work_tree_is_not_opened_as_a_bare_one(farm):
    assert not (await Repository.open(farm)).bare


async def test_a_folder_in_no_repository_is_not_one(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound) as caught:
        await Repository.open(tmp_path / "empty")
    assert "git -C" in caught.value.remedy


async def test_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="there is no folder"):
        await Repository.open(tmp_path / "gone")


async def test_a_bare_repository_and_a_link_to_one_are_opened(farm, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(farm), "bare.git")
    (tmp_path / "link").symlink_to("bare.git")
    for path in ("bare.git", "link"):
        repository = await Repository.open(tmp_path / path)
        assert repository.bare
        assert await repository.head("main") == git(farm, "rev-parse", "main")


async def test_a_linked_work_tree_is_opened(farm, tmp_path):
    git(farm, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    repository = await Repository.open(tmp_path / "side")
    assert repository.common_dir == farm / ".git"
    assert await repository.head("side") == git(farm, "rev-parse", "main")


async def test_without_git_the_missing_part_is_named(farm, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartMissing, match="git"):
        await Repository.open(farm)


# Reading


async def test_the_tip_and_its_generation(farm):
    repository = await Repository.open(farm)
    tip = await repository.tip("main")
    assert tip.commit == git(farm, "rev-parse", "HEAD")
    assert tip.time == float(git(farm, "show", "-s", "--format=%ct"))
    assert await repository.generation(tip.commit) == 1
    git(farm, "commit", "-q", "--allow-empty", "-m", "next")
    assert await repository.generation(await repository.head("main")) == 2


async def test_a_branch_that_is_not_there_is_not_found(farm):
    repository = await Repository.open(farm)
    with pytest.raises(NotFound, match="no commit on the branch next"):
        await repository.head("next")
    with pytest.raises(InputRefused):
        await repository.head("--all")


async def test_a_broken_repository_is_not_taken_for_an_empty_one(farm):
    repository = await Repository.open(farm)
    (farm / ".git" / "HEAD").unlink()
    with pytest.raises(MilkrunError) as caught:
        await repository.head("main")
    assert not isinstance(caught.value, NotFound)


async def test_the_files_of_a_commit_and_what_stands_in_them(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    files = await repository.files(head)
    assert sorted(files) == ["apps/goat.py", "deploy/goat.json", "milkrun.toml"]
    assert sorted(await repository.files(head, "deploy", "milkrun.toml")) == [
        "deploy/goat.json",
        "milkrun.toml",
    ]
    assert files["deploy/goat.json"].size == len(GOAT)
    contents = await repository.contents(files.values())
    assert contents[files["deploy/goat.json"].blob] == GOAT
    assert await repository.read(head, "deploy/goat.json", 1000) == GOAT


async def test_what_is_read_is_bounded_and_plain(farm):
    (farm / "deploy" / "cow.json").symlink_to("/etc/hostname")
    git(farm, "add", "-A")
    git(farm, "commit", "-qm", "a link")
    repository = await Repository.open(farm)
    head = await repository.head("main")
    assert not (await repository.files(head))["deploy/cow.json"].plain
    with pytest.raises(InputRefused, match="is a link"):
        await repository.read(head, "deploy/cow.json", 1000)
    with pytest.raises(InputRefused, match="is the most"):
        await repository.read(head, "deploy/goat.json", 5)
    with pytest.raises(NotFound):
        await repository.read(head, "deploy/pig.json", 1000)


async def test_odd_names_and_many_files_are_read(farm):
    (farm / os.fsdecode(b"deploy/\xff\n'\".json")).write_bytes(b"odd")
    for number in range(1200):
        write(farm, f"deploy/s{number}.json", b"%d" % number * (number % 50))
    git(farm, "add", "-A")
    git(farm, "commit", "-qm", "many")
    repository = await Repository.open(farm)
    files = await repository.files(await repository.head("main"), "deploy")
    assert len(files) == 1202
    contents = await repository.contents(files.values())
    assert contents[files["deploy/s7.json"].blob] == b"7777777"
    assert contents[files["deploy/\\xff\n'\".json"].blob] == b"odd"


async def test_the_callers_git_variables_do_not_reach_git(farm, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    assert await (await Repository.open(farm)).head("main")


async def test_a_call_that_takes_too_long_is_stopped_with_all_it_started(farm, tmp_path):
    pid_file = tmp_path / "pid"
    git(farm, "config", "alias.wait", f"!echo $$ > {pid_file}; exec sleep 100")
    with pytest.raises(TimedOut):
        async with asyncio.timeout(20):
            await Git(farm).run("wait", wait_s=5)  # on a busy machine git itself needs a while
    assert not running(int(pid_file.read_text()))


# Committing


async def test_a_commit_moves_the_branch_the_index_and_the_file(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    commit = await commit_file(repository, "main", "deploy/goat.json", b"{}\n", "none\n\nwhy", parent=head)
    assert git(farm, "rev-parse", "HEAD") == commit
    assert git(farm, "rev-parse", "HEAD^") == head
    assert git(farm, "status", "--porcelain") == ""
    assert (farm / "deploy/goat.json").read_bytes() == b"{}\n"
    assert git(farm, "show", "--stat", "--format=%an <%ae>|%cn|%s|%b", "HEAD").startswith(
        "milkrun <milkrun@localhost>|milkrun|none|why"
    )
    assert git(farm, "diff", "--name-only", "HEAD^", "HEAD") == "deploy/goat.json"
    assert git(farm, "reflog", "-1", "--format=%gs") == "commit: none"
    assert sorted(entry.name for entry in (farm / "deploy").iterdir()) == ["goat.json"]
    assert not list((farm / ".git").glob("milkrun-*"))
    git(farm, "fsck", "--strict")


async def test_the_repositorys_own_user_commits(farm):
    git(farm, "config", "user.name", "Peter")
    git(farm, "config", "user.email", "peter@example.org")
    repository = await Repository.open(farm)
    await commit_file(repository, "main", "deploy/goat.json", b"", "x", parent=await repository.head("main"))
    assert git(farm, "show", "-s", "--format=%an %ae %cn %ce") == " ".join(["Peter peter@example.org"] * 2)


async def test_a_new_file_in_a_new_folder_is_committed(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    await commit_file(repository, "main", "notes/new.txt", b"hello", "x", parent=head)
    assert git(farm, "status", "--porcelain") == ""
    assert (farm / "notes/new.txt").read_bytes() == b"hello"


async def test_other_edits_in_the_work_tree_stay_as_they_are(farm):
    write(farm, "milkrun.toml", b"edited")
    write(farm, "apps/goat.py", b"staged")
    git(farm, "add", "apps/goat.py")
    write(farm, "untracked", b"")
    before = git(farm, "status", "--porcelain")
    repository = await Repository.open(farm)
    await commit_file(
        repository, "main", "deploy/goat.json", b"{}", "x", parent=await repository.head("main")
    )
    assert git(farm, "status", "--porcelain") == before
    assert git(farm, "diff", "--name-only", "HEAD^", "HEAD") == "deploy/goat.json"


@pytest.mark.parametrize("how", ["edited", "staged", "deleted", "untracked"])
async def test_uncommitted_changes_of_the_file_are_never_overwritten(farm, how):
    path = "deploy/cow.json" if how == "untracked" else "deploy/goat.json"
    if how == "deleted":
        (farm / path).unlink()
    else:
        write(farm, path, b"mine")
    if how == "staged":
        git(farm, "add", path)
        write(farm, path, GOAT)
    repository = await Repository.open(farm)
    head = await repository.head("main")
    before = git(farm, "status", "--porcelain")
    with pytest.raises(Conflict) as caught:
        await commit_file(repository, "main", path, b"{}", "x", parent=head)
    assert "not committed" in caught.value.message
    assert "git commit" in caught.value.remedy
    assert git(farm, "rev-parse", "main") == head
    assert git(farm, "status", "--porcelain") == before
    git(farm, "commit", "-q", "--allow-empty", "-m", "no lock is left behind")


async def test_a_branch_that_moved_on_is_a_conflict(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    git(farm, "commit", "-q", "--allow-empty", "-m", "meanwhile")
    for data in (b"{}", GOAT):
        with pytest.raises(Conflict, match="moved on"):
            await commit_file(repository, "main", "deploy/goat.json", data, "x", parent=head)
    assert git(farm, "status", "--porcelain") == ""


async def test_of_many_commits_on_one_parent_one_wins(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    results = await asyncio.gather(
        *(
            commit_file(repository, "main", "deploy/goat.json", b"%d" % number, "x", parent=head)
            for number in range(6)
        ),
        return_exceptions=True,
    )
    won = [result for result in results if isinstance(result, str)]
    assert won == [git(farm, "rev-parse", "main")]
    assert sum(isinstance(result, Conflict) for result in results) == 5
    assert git(farm, "rev-parse", "main^") == head
    assert git(farm, "status", "--porcelain") == ""


async def test_an_index_that_another_git_holds_is_a_conflict_and_stays_held(farm):
    repository = await Repository.open(farm)
    (farm / ".git/index.lock").touch()
    head = await repository.head("main")
    with pytest.raises(Conflict, match="another git command"):
        await commit_file(repository, "main", "deploy/goat.json", b"{}", "x", parent=head)
    assert (farm / ".git/index.lock").exists()
    assert await repository.head("main") == head
    assert not (farm / ".git/refs/heads/main.lock").exists()


async def test_the_same_content_makes_no_commit(farm):
    repository = await Repository.open(farm)
    head = await repository.head("main")
    assert await commit_file(repository, "main", "deploy/goat.json", GOAT, "x", parent=head) == head
    assert await repository.head("main") == head


async def test_a_bare_repository_takes_a_commit(farm, tmp_path):
    git(tmp_path, "clone", "-q", "--bare", str(farm), "bare.git")
    repository = await Repository.open(tmp_path / "bare.git")
    head = await repository.head("main")
    commit = await commit_file(repository, "main", "deploy/goat.json", b"{}", "x", parent=head)
    assert await repository.read(commit, "deploy/goat.json", 10) == b"{}"
    assert await repository.head("main") == commit


async def test_a_branch_that_is_not_checked_out_leaves_the_work_tree_alone(farm):
    git(farm, "branch", "side")
    repository = await Repository.open(farm)
    head = await repository.head("side")
    await commit_file(repository, "side", "deploy/goat.json", b"{}", "x", parent=head)
    assert (farm / "deploy/goat.json").read_bytes() == GOAT
    assert git(farm, "status", "--porcelain") == ""


async def test_no_hook_and_no_command_of_the_repositorys_settings_runs(farm, tmp_path):
    marker = tmp_path / "ran"
    hooks = farm / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("reference-transaction", "post-index-change", "pre-commit", "post-commit", "update"):
        write(hooks, name, f"#!/bin/sh\ntouch {marker}\n".encode())
        (hooks / name).chmod(0o755)
    write(tmp_path, "monitor", f"#!/bin/sh\ntouch {marker}\n".encode())
    (tmp_path / "monitor").chmod(0o755)
    git(farm, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    repository = await Repository.open(farm)
    await commit_file(
        repository, "main", "deploy/goat.json", b"{}", "x", parent=await repository.head("main")
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/x",
        "../x",
        "a/../../x",
        ".git/config",
        "a/.GIT/x",
        "a//b",
        "a/",
        "a\nb",
        "a\\b",
        ".gitmodules",
    ],
)
async def test_a_path_that_leads_out_or_into_git_is_refused(farm, path):
    repository = await Repository.open(farm)
    with pytest.raises(InputRefused):
        await commit_file(repository, "main", path, b"", "x", parent=await repository.head("main"))


async def test_a_link_is_not_committed_over(farm):
    (farm / "deploy/cow.json").symlink_to("/etc/hostname")
    git(farm, "add", "-A")
    git(farm, "commit", "-qm", "a link")
    repository = await Repository.open(farm)
    with pytest.raises(InputRefused, match="is a link"):
        await commit_file(
            repository, "main", "deploy/cow.json", b"", "x", parent=await repository.head("main")
        )


async def test_a_folder_becomes_a_repository_with_all_its_files(tmp_path):
    write(tmp_path, "farm/milkrun.toml", b"x")
    write(tmp_path, "farm/.gitignore", b".milkrun/\n")
    write(tmp_path, "farm/.milkrun/state", b"x")
    commit = await create(tmp_path / "farm", "trunk", "Start")
    repository = await Repository.open(tmp_path / "farm")
    assert await repository.head("trunk") == commit
    assert sorted(await repository.files(commit)) == [".gitignore", "milkrun.toml"]
    assert git(tmp_path / "farm", "status", "--porcelain", "--branch") == "## trunk"
    assert git(tmp_path / "farm", "log", "-1", "--format=%an <%ae> %s") == "milkrun <milkrun@localhost> Start"


# The quick reader


@pytest.fixture
async def reader(farm):
    async with QuickReader(await Repository.open(farm)) as reader:
        yield reader


async def same(reader: QuickReader) -> str:
    """The quick reader tells the same as a new git process does; gives the tip."""
    repository = reader.repository
    tip = await reader.tip("main")
    assert tip == await repository.tip("main")
    assert await reader.generation(tip.commit) == await repository.generation(tip.commit)
    for under in ((), ("deploy", "milkrun.toml"), ("nothing",)):
        files = await reader.files(tip.commit, *under)
        assert files == await repository.files(tip.commit, *under)
        plain = [file for file in files.values() if file.plain]
        assert await reader.contents(plain) == await repository.contents(plain)
    return tip.commit


async def test_the_quick_reader_tells_what_git_tells(farm, reader):
    await same(reader)
    (farm / os.fsdecode(b"deploy/\xff\n.json")).write_bytes(b"odd")
    (farm / "link").symlink_to("deploy")
    write(farm, "deploy/a/b/c.json", b"")
    git(farm, "add", "-A")
    git(farm, "update-index", "--add", "--cacheinfo", f"160000,{git(farm, 'rev-parse', 'HEAD')},sub")
    git(farm, "commit", "-qm", "odd\n\ntree not-a-tree\nparent neither")
    await same(reader)
    git(farm, "checkout", "-q", "-b", "side", "HEAD^")
    git(farm, "commit", "-q", "--allow-empty", "-m", "side")
    git(farm, "checkout", "-q", "main")
    git(farm, "commit", "-q", "--allow-empty", "-m", "main")
    await same(reader)
    git(farm, "merge", "-q", "--no-edit", "side")
    await same(reader)
    git(farm, "gc", "-q")
    await same(reader)
    git(farm, "commit", "-q", "--amend", "--allow-empty", "-m", "amended")
    await same(reader)
    git(farm, "reset", "-q", "--hard", "HEAD~2")
    await same(reader)


async def test_the_quick_reader_starts_no_program_for_a_next_commit(farm, reader, monkeypatch, tmp_path):
    await same(reader)
    git(farm, "commit", "-q", "--allow-empty", "-m", "next")
    monkeypatch.setenv("PATH", str(tmp_path))
    tip = await reader.tip("main")
    assert await reader.generation(tip.commit) == 2
    files = await reader.files(tip.commit, "deploy")
    assert await reader.contents(files.values())


async def test_the_quick_reader_outlives_its_processes(farm, reader):
    await same(reader)
    process = reader._objects._process
    process.kill()
    await process.wait()
    await same(reader)
    with pytest.raises(NotFound):
        await reader.tip("next")
    await same(reader)


async def test_a_question_that_was_cut_short_does_not_spoil_the_next_answer(farm, reader):
    head = await same(reader)
    for _ in range(5):
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(reader.files(head))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asked.cancel()
    await same(reader)


# Watching


async def next_of(iterator):
    return await asyncio.wait_for(anext(iterator), 10)


async def test_each_new_tip_of_a_local_branch_is_seen(farm, reader, monkeypatch):
    monkeypatch.setattr(tips, "ASK_S", 1e9)  # what is not seen at once is not seen at all
    sights = local_tips(reader, "main")
    first = await next_of(sights)
    assert first.tip.commit == git(farm, "rev-parse", "HEAD")
    for how in (("commit", "-q", "--allow-empty", "-m", "x"), ("pack-refs", "--all"), ("gc", "-q")):
        git(farm, *how)
    second = await next_of(sights)
    assert second.tip.commit == git(farm, "rev-parse", "HEAD")
    git(farm, "commit", "-q", "--allow-empty", "-m", "y")
    assert (await next_of(sights)).tip.commit == git(farm, "rev-parse", "HEAD")
    await sights.aclose()


async def test_a_branch_that_cannot_be_read_is_trouble_and_its_last_tip_stays(farm, reader):
    sights = local_tips(reader, "main")
    first = await next_of(sights)
    farm.rename(farm.with_name("away"))
    sight = await next_of(sights)
    assert sight.tip == first.tip
    assert "is gone" in sight.trouble
    farm.with_name("away").rename(farm)
    assert await next_of(sights) == first
    await sights.aclose()


async def test_a_repository_put_in_place_of_another_is_seen(farm, reader, tmp_path):
    git(tmp_path, "clone", "-q", str(farm), "other")
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "x")
    sights = local_tips(reader, "main")
    await next_of(sights)
    await same(reader)
    farm.rename(tmp_path / "away")
    (tmp_path / "other").rename(farm)
    sight = await next_of(sights)
    if sight.trouble:  # it was seen between the two
        sight = await next_of(sights)
    assert sight.tip.commit == git(farm, "rev-parse", "HEAD")
    await same(reader)
    await sights.aclose()


async def test_a_mirror_follows_a_remote(farm, tmp_path):
    mirror = Mirror(f"file://{farm}", tmp_path / "mirror", "main")
    sights = mirrored_tips(mirror, 0.05)
    assert (await next_of(sights)).tip.commit == git(farm, "rev-parse", "HEAD")
    git(farm, "commit", "-q", "--allow-empty", "-m", "x")
    sight = await next_of(sights)
    assert sight.tip.commit == git(farm, "rev-parse", "HEAD")
    repository = await mirror.open()
    assert await repository.generation(sight.tip.commit) == 2
    assert repository.bare
    await sights.aclose()


async def test_a_rewritten_remote_is_reported_and_not_followed(farm, tmp_path):
    git(farm, "commit", "-q", "--allow-empty", "-m", "x")
    mirror = Mirror(f"file://{farm}", tmp_path / "mirror", "main")
    old = await mirror.fetch()
    git(farm, "commit", "-q", "--amend", "--allow-empty", "-m", "rewritten")
    with pytest.raises(Conflict, match="was rewritten"):
        await mirror.fetch()
    sights = mirrored_tips(mirror, 0.05)
    sight = await next_of(sights)
    assert sight.tip == old
    assert "rewritten" in sight.trouble
    await sights.aclose()
    git(farm, "reset", "-q", "--hard", old.commit)
    assert await mirror.fetch() == old


async def test_a_remote_that_is_away_is_trouble_and_the_mirror_stays(farm, tmp_path):
    mirror = Mirror(f"file://{farm}", tmp_path / "mirror", "main")
    old = await mirror.fetch()
    farm.rename(tmp_path / "away")
    with pytest.raises(MilkrunError, match="cannot be fetched"):
        await mirror.fetch()
    assert await mirror.last() == old


async def test_a_remote_that_is_too_large_is_refused_once_and_the_mirror_stays(farm, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror_module, "FETCH_BYTES_AT_MOST", 1 << 20)
    mirror = Mirror(f"file://{farm}", tmp_path / "mirror", "main")
    old = await mirror.fetch()
    for number in range(3):  # no one of them is
        write(farm, f"large{number}", os.urandom(600 << 10))
    git(farm, "add", "-A")
    git(farm, "commit", "-qm", "large")

    for _ in range(2):
        with pytest.raises(InputRefused, match="more than 1 MiB are new there"):
            await mirror.fetch()
        assert not list((tmp_path / "mirror").glob("objects/**/tmp_*"))
        assert await mirror.last() == old
    monkeypatch.setattr(mirror_module, "FETCH_BYTES_AT_MOST", 1 << 30)
    with pytest.raises(InputRefused):
        await mirror.fetch()  # the branch is where it was: nothing is downloaded

    git(farm, "reset", "-q", "--hard", old.commit)
    git(farm, "commit", "-q", "--allow-empty", "-m", "x")
    assert (await mirror.fetch()).commit == git(farm, "rev-parse", "HEAD")


@pytest.mark.parametrize(
    "url",
    ["-uhost:x", "--upload-pack=x", "ext::sh -c x", "http://example.org/x", "git://h/x", "fd::7", "https://",
     "", "ssh://-oProxyCommand=x/y", "https://h/\nx", "-x@h:y"],
)  # fmt: skip
def test_a_url_that_could_run_something_or_be_read_on_the_way_is_refused(url, tmp_path):
    with pytest.raises(InputRefused):
        Mirror(url, tmp_path, "main")


def test_a_url_is_told_from_a_folder_and_shown_without_its_password(tmp_path):
    assert is_remote("https://h/x")
    assert is_remote("git@host:farm.git")
    assert not is_remote("/srv/farm")
    assert not is_remote("../farm")
    assert Mirror("https://me:secret@h/x@y", tmp_path, "main").shown == "https://h/x@y"


async def test_a_password_in_the_url_is_not_in_the_error(tmp_path):
    mirror = Mirror("https://me:secret@127.0.0.1:1/x", tmp_path / "mirror", "main")
    with pytest.raises(MilkrunError) as caught:
        await mirror.fetch()
    assert "secret" not in caught.value.message + caught.value.remedy


async def test_an_id_that_is_no_id_does_not_reach_git(farm):
    with pytest.raises(InputRefused):
        await (await Repository.open(farm)).files(CommitId("--help"))
