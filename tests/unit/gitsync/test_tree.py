import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import InputRefused
from milkrun.gitsync import tree
from milkrun.model import CommitId
from milkrun.repository import File

COMMIT = CommitId("c" * 40)
GOOD = {
    "milkrun.toml": b'name = "farm"\n',
    "services/goat.toml": b'command = ["goat"]\n',
    "deploy/goat.json": b'{"version=0.0.1": {"weight": 1}}',
    "deploy/README.md": b"not for the registry",
    "services/README.md": b"neither",
}


def read(files: dict[str, bytes], modes: dict[str, str] | None = None, sizes: dict[str, int] | None = None):
    entries = {
        path: File(
            hashlib.sha1(data).hexdigest(),
            (sizes or {}).get(path, len(data)),
            (modes or {}).get(path, "100644"),
        )
        for path, data in files.items()
    }
    needed = {file.blob for file in tree.readable(entries)}
    contents = {entries[path].blob: data for path, data in files.items() if entries[path].blob in needed}
    return tree.wanted(entries, contents, COMMIT)


def test_the_settings_and_the_wishes_of_a_commit():
    wanted = read(GOOD)
    assert wanted.environment.name == "farm"
    assert list(wanted.services) == list(wanted.wishes) == ["goat"]
    assert wanted.refused == []


@pytest.mark.parametrize(
    ("path", "data", "line", "reason"),
    [
        ("deploy/cow.json", b'{\n "version=1": {"weight": -1}}', 2, "from 0 up"),
        ("deploy/Cow.json", b"{}", 0, "is not a service name"),
        ("deploy/milkrun.json", b"{}", 0, "milkrun's own"),
        ("services/milkrun.toml", b'command = ["x"]', 0, "milkrun's own"),
        ("services/cow.toml", b'\ncomand = ["x"]', 2, "did you mean `command`?"),
        ("deploy/cows/cow.json", b"{}", 0, "one folder up"),
        ("milkrun.toml", b"nam = 1", 1, "did you mean `name`?"),
    ],
)
def test_a_bad_file_is_refused_and_the_others_are_read(path, data, line, reason):
    wanted = read(GOOD | {path: data})
    [refusal] = wanted.refused
    assert (refusal.file, refusal.line, refusal.commit) == (path, line, COMMIT)
    assert reason in refusal.reason
    assert "goat" in wanted.wishes
    assert "goat" in wanted.services
    assert wanted.kept == {path}


def test_a_refusal_says_what_to_do():
    [refusal] = read(GOOD | {"deploy/cow.json": b'{"version=1": {"weight": 0}}'}).refused
    assert '"maintenance": true' in refusal.reason


def test_services_that_need_one_another_in_a_circle_are_refused_and_the_others_read():
    call = 'command = ["x"]\nneeds = ["hay",\n  "%s"]\n'
    found = read(
        {
            "milkrun.toml": b'name = "farm"\n',
            "services/goat.toml": (call % "farmer").encode(),
            "services/farmer.toml": (call % "goat").encode(),
            "services/hay.toml": b'command = ["x"]\n',
            "services/shop.toml": b'command = ["x"]\nneeds = ["farmer"]\n',
        }
    )
    assert sorted(found.services) == ["hay", "shop"]
    assert found.kept == {"services/goat.toml", "services/farmer.toml"}
    [farmer, goat] = found.refused
    assert goat.line == farmer.line == 3
    assert "farmer -> goat -> farmer: none of them could start first" in farmer.reason


def test_links_submodules_and_giants_are_refused_unread():
    wanted = read(
        GOOD | {"deploy/a.json": b"/etc/passwd", "deploy/b.json": b"", "deploy/c.json": b""},
        modes={"deploy/a.json": "120000", "deploy/b.json": "160000"},
        sizes={"deploy/c.json": 10_000_000},
    )
    assert [refusal.file for refusal in wanted.refused] == ["deploy/a.json", "deploy/b.json", "deploy/c.json"]
    assert "is a link" in wanted.refused[0].reason
    assert "is the most" in wanted.refused[2].reason


def test_a_folder_that_became_a_link_is_refused():
    wanted = read({"milkrun.toml": b'name = "farm"', "deploy": b"/etc"}, modes={"deploy": "120000"})
    assert wanted.refused[0].file == "deploy"


def test_a_missing_settings_file_is_said():
    files = dict(GOOD)
    del files["milkrun.toml"]
    wanted = read(files)
    assert wanted.environment is None
    assert wanted.refused[0].file == "milkrun.toml"


paths = st.one_of(
    st.sampled_from([*GOOD, "deploy", "services", "deploy/a/b.json", "deploy/.json", "services/a.json"]),
    st.text(alphabet="adeploy/servic.jtom", max_size=16),
)


@given(
    st.dictionaries(paths, st.binary(max_size=30)),
    st.dictionaries(paths, st.sampled_from(["120000", "160000"])),
)
def test_no_tree_raises(files, modes):
    wanted = read(files, modes)
    assert wanted.kept.isdisjoint(f"deploy/{name}.json" for name in wanted.wishes)


@pytest.mark.parametrize(
    ("limit", "most", "why"), [("FILES_AT_MOST", 4, "has 5 files"), ("BYTES_AT_MOST", 60, "have 65 bytes")]
)
def test_a_commit_with_too_much_in_it_is_refused(monkeypatch, limit, most, why):
    monkeypatch.setattr(tree, limit, most + 100)
    assert read(GOOD).refused == []
    monkeypatch.setattr(tree, limit, most)
    with pytest.raises(InputRefused, match=why):
        read(GOOD)
