"""A secret that stands in the repository is none."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.gitsync import secrets, tree
from milkrun.model import CommitId
from milkrun.repository import File

COMMIT = CommitId("c" * 40)
ROOT = "/srv/farm"


def judged(path: str, tracked: dict[str, str], *, root: str = ROOT):
    texts = {
        "milkrun.toml": b'name = "farm"\n',
        "services/cow.toml": b'command = ["cow"]\n',
        "services/goat.toml": f'command = ["goat"]\n\n[secrets]\nDATABASE = "{path}"\n'.encode(),
    }
    files = {name: File(hashlib.sha1(data).hexdigest(), len(data), "100644") for name, data in texts.items()}
    contents = {files[name].blob: data for name, data in texts.items()}
    wanted = tree.wanted(files, contents, COMMIT)
    assert wanted.refused == []
    there = {name: File("b" * 40, 9, mode) for name, mode in tracked.items()}
    # What lies outside of the places was not looked at, as in a sync.
    tops = secrets.places(wanted.services, root)
    seen = {name: file for name, file in there.items() if name.partition("/")[0] in tops}
    return secrets.without_given_away(wanted, root, seen, texts, COMMIT)


@pytest.mark.parametrize(
    "path", ["keys/db", "./keys/db", "keys/../keys//db", "/srv/farm/keys/db", "/srv/farm/../farm/keys/db"]
)
def test_one_that_git_tracks_is_refused_with_its_line_and_what_to_do(path):
    wanted = judged(path, {"keys/db": "100644"})
    [refusal] = wanted.refused
    assert (refusal.file, refusal.line, refusal.commit) == ("services/goat.toml", 4, COMMIT)
    assert "the secret DATABASE is keys/db, which git tracks" in refusal.reason
    assert "git rm --cached keys/db" in refusal.reason
    assert "change the secret" in refusal.reason
    assert list(wanted.services) == ["cow"]
    assert wanted.kept == {"services/goat.toml"}


@pytest.mark.parametrize(
    ("path", "tracked"),
    [
        ("keys/db", {"keys/other": "100644"}),  # it lies beside what is tracked, and is not
        ("/etc/keys/db", {"keys/db": "100644", "etc/keys/db": "100644"}),  # another folder of the host
        ("../keys/db", {"keys/db": "100644"}),
        ("/srv/farmer/keys/db", {"keys/db": "100644"}),
        ("keys/db", {"keys/db": "120000"}),  # a link to where it is; its content is not in git
    ],
)
def test_one_that_git_does_not_track_is_none_of_its_business(path, tracked):
    wanted = judged(path, tracked)
    assert wanted.refused == []
    assert list(wanted.services) == ["cow", "goat"]


_NAME = st.sampled_from(["keys", "db", "..", ".", "farm", "srv"])


@given(st.lists(_NAME, min_size=1, max_size=6), st.booleans())
def test_however_a_path_is_written_it_is_found_where_it_is(parts: list[str], whole: bool):
    """What the agent would open is what is looked for: both go by the folders' names alone."""
    path = "/".join([ROOT, *parts] if whole else parts)
    wanted = judged(path, {"keys/db": "100644"})
    kept: list[str] = []
    for part in [*ROOT.split("/")[1:], *parts]:
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
    assert bool(wanted.refused) == ("/" + "/".join(kept) == f"{ROOT}/keys/db")


def test_its_own_settings_file_is_no_secret():
    assert judged("services/goat.toml", {"services/goat.toml": "100644"}).refused
