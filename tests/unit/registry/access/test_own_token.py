"""The registry's own token: made once, read only where nobody else could have."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from milkrun.errors import InputRefused
from milkrun.host import secret
from milkrun.registry.access import own_token
from milkrun.registry.access.own_token import digest_at
from milkrun.registry.access.tokens import digest_of

GOOD = "x" * secret.CHARACTERS_AT_LEAST


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "token"


def put(file: Path, text: str | bytes, mode: int = 0o600) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)


def test_the_first_start_makes_one_that_only_its_owner_reads(file):
    old = os.umask(0)
    try:
        digest = digest_at(file)
    finally:
        os.umask(old)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text().strip()
    assert len(secret) >= 43, "256 bits"
    assert digest == digest_of(secret.encode())
    assert [each.name for each in file.parent.iterdir()] == ["token"], "no draft is left"


def test_later_starts_take_the_one_that_is_there(file):
    digest = digest_at(file)

    assert digest_at(file) == digest


def test_two_environments_have_two(tmp_path):
    assert digest_at(tmp_path / "a") != digest_at(tmp_path / "b")


def test_a_file_with_another_secret_is_the_truth(file):
    old = digest_at(file)
    put(file, f"{GOOD}\n")

    assert digest_at(file) == digest_of(GOOD.encode()) != old


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o601, 0o620, 0o777])
def test_a_file_that_others_can_touch_is_refused_and_stays(file, mode):
    put(file, GOOD, mode)

    with pytest.raises(InputRefused, match=f"mode {mode:04o}") as refused:
        digest_at(file)
    assert refused.value.remedy == f"chmod 600 {file}"
    assert GOOD not in str(refused.value)
    assert file.read_text() == GOOD


@pytest.mark.parametrize("target", ["other", "missing"])
def test_a_link_is_refused(file, tmp_path, target):
    put(tmp_path / "other", GOOD)
    file.parent.mkdir()
    file.symlink_to(tmp_path / target)

    with pytest.raises(InputRefused, match="cannot be"):
        digest_at(file)
    assert file.is_symlink()
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "text",
    ["", "\n", "short", GOOD[:-1], f"{GOOD}\n{GOOD}", "é" * 40, b"\xff" * 40, "x" * 5000],
    ids=["empty", "blank", "short", "one too short", "two lines", "no ASCII", "no text", "too long"],
)
def test_what_is_no_token_is_refused_and_not_shown(file, text):
    put(file, text)

    with pytest.raises(InputRefused, match="one line of 32 characters") as refused:
        digest_at(file)
    assert GOOD[:-1] not in str(refused.value)


def test_a_pipe_is_refused_and_not_waited_for(file):
    file.parent.mkdir()
    os.mkfifo(file, 0o600)

    with pytest.raises(InputRefused, match="no plain file"):
        digest_at(file)


def test_a_folder_is_refused(file):
    file.mkdir(parents=True, mode=0o700)

    with pytest.raises(InputRefused):
        digest_at(file)


def test_what_an_earlier_start_left_does_not_stop_the_next(file):
    """A draft under the same name: in a container each start may have the same process id."""
    file.parent.mkdir()
    (file.parent / f".token.{os.getpid()}").write_text("half")

    assert digest_at(file) == digest_of(file.read_bytes().strip())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "plain").write_text("")

    with pytest.raises(InputRefused, match="cannot be"):
        digest_at(tmp_path / "plain" / "token")


def test_of_two_who_make_it_at_once_the_first_ones_token_counts(tmp_path):
    file = tmp_path / "token"
    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(own_token.digest_at, [file] * 64))

    assert digests == {own_token.digest_at(file)}
    assert [each.name for each in tmp_path.iterdir()] == ["token"]
