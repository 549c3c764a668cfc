from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.host.process import Identity, identity, runs, ticks


@contextlib.contextmanager
def no_file_can_be_opened():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def me() -> Identity:
    known = identity(os.getpid())
    assert known
    return known


def test_a_process_is_itself():
    assert me() == me()
    assert runs(me())


@pytest.mark.parametrize("other", [{"ticks": 1}, {"boot": "another"}])
def test_a_pid_that_is_another_process_by_now_is_not_the_one_that_was_known(other):
    assert not runs(msgspec.structs.replace(me(), **other))


def test_what_has_ended_has_no_identity_and_neither_have_its_remains():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        known = identity(child.pid)
        assert known
        assert runs(known)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists(), "nobody has reaped it"
        assert (identity(child.pid), runs(known)) == (None, False)
    assert (identity(child.pid), runs(known)) == (None, False)


def test_what_cannot_be_looked_at_still_runs_and_is_nobody_to_signal():
    known = me()
    gone = msgspec.structs.replace(known, ticks=1)
    with no_file_can_be_opened():
        found = identity(known.pid), runs(known), runs(gone)
    assert found == (None, True, True)


def test_a_program_may_have_the_name_of_a_state(tmp_path):
    name = tmp_path / ") Z 1 (x"
    name.symlink_to("/bin/cat")
    with subprocess.Popen([name], stdin=subprocess.PIPE) as child:
        assert identity(child.pid)


@given(
    st.integers(1, 2**22),
    st.text(alphabet=st.one_of(st.sampled_from(") (Z1"), st.characters()), max_size=15),
    st.sampled_from("RSDTtI"),
    st.lists(st.integers(-(2**63), 2**64), min_size=49, max_size=49),
)
def test_the_start_is_the_22nd_field_whatever_the_program_is_called(pid, name, state, rest):
    fields = " ".join(map(str, rest))
    assert ticks(f"{pid} ({name}) {state} {fields}\n") == rest[18]
    assert ticks(f"{pid} ({name}) Z {fields}\n") is None
