from __future__ import annotations

from pathlib import Path

import pytest

from milkrun.agent.units.logfile import rotate
from milkrun.cli.tail import Tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "goat.log"
    path.write_text("one\ntwo\nthree\n")
    return path


def add(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_the_last_lines_first_then_only_new_ones(log: Path):
    tail = Tail(log, 2)
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []
    add(log, "four\nfi")
    assert tail.lines() == ["four"]
    add(log, "ve\n")
    assert tail.lines() == ["five"]


def test_none_of_the_old_lines_when_none_are_asked_for(log: Path):
    tail = Tail(log, 0)
    assert tail.lines() == []
    add(log, "four\n")
    assert tail.lines() == ["four"]


def test_a_log_that_was_cut_starts_over(log: Path):
    tail = Tail(log, 10)
    tail.lines()
    log.write_text("new\n")
    assert tail.lines() == ["new"]


def test_nothing_is_missed_when_the_agent_rotates_it(log: Path):
    tail = Tail(log, 1)
    assert tail.lines() == ["three"]
    add(log, "four\nfive\n")
    assert rotate(log, bytes_at_most=5)
    add(log, "six\n")
    assert tail.lines() == ["four", "five", "six"]
    add(log, "se")
    assert tail.lines() == []
    add(log, "ven\nei")
    assert rotate(log, bytes_at_most=5)
    add(log, "ght\n")
    assert tail.lines() == ["seven", "eight"]


def test_the_last_lines_may_stand_in_the_rotated_file(log: Path):
    assert rotate(log, bytes_at_most=5)
    add(log, "four\nfive\n")
    assert Tail(log, 3).lines() == ["three", "four", "five"]
    assert Tail(log, 2).lines() == ["four", "five"]
    assert Tail(log, 10).lines() == ["one", "two", "three", "four", "five"]
    assert Tail(log, 0).lines() == []


def test_a_log_that_was_replaced_starts_over(log: Path, tmp_path: Path):
    tail = Tail(log, 10)
    tail.lines()
    other = tmp_path / "other"
    other.write_text("a much longer line than all that was there before\n")
    other.replace(log)
    assert tail.lines() == ["a much longer line than all that was there before"]


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path):
    tail = Tail(tmp_path / "later.log", 5)
    assert tail.lines() == []
    (tmp_path / "later.log").write_text("first\n")
    assert tail.lines() == ["first"]


def test_more_lines_than_a_block_holds(log: Path):
    log.write_text("".join(f"{'x' * 100} {number}\n" for number in range(5000)))
    assert [line[101:] for line in Tail(log, 1500).lines()] == [str(n) for n in range(3500, 5000)]


def test_a_log_cannot_drive_the_terminal(log: Path):
    log.write_bytes(b"\x1b]0;owned\x07 \xff\n")
    assert Tail(log, 1).lines() == ["\\x1b]0;owned\\x07 �"]
