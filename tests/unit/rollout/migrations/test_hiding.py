from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.rollout.migrations import hiding
from milkrun.rollout.migrations.hiding import LINE_BYTES_AT_MOST, TOO_LONG, Lines, secrets


def printed(text, hidden=(), cuts=()):
    data = text if isinstance(text, bytes) else text.encode()
    lines = Lines(hidden)
    found = []
    at = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += lines.feed(data[at:cut])
        at = cut
    return [*found, *lines.end()]


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("postgresql://boss:hush@db/farm", ["hush"]),
        ("postgresql://boss:hu%40sh@db/farm", ["hu%40sh", "hu@sh"]),
        ("postgresql://boss:hu%2Fs%25h@db/farm", ["hu%2Fs%25h", "hu/s%h", "hu/s%25h"]),
        ("postgresql://boss@db/farm?password=hush&sslmode=require", ["hush"]),
        ("postgresql://boss@db/farm?sslpassword=hush", ["hush"]),
        ("host=db user=boss password=hush dbname=farm", ["hush"]),
        (r"host=db password = 'hu \'sh' dbname=farm", ["hu 'sh"]),
    ],
)
def test_a_url_has_its_password_in_each_form(url, hidden):
    found = secrets(url)
    assert url in found
    assert {*hidden} <= {*found}
    assert "db" not in found
    assert printed(f"connects to {url} with {' and '.join(hidden)}", found) == [
        f"connects to *** with {' and '.join('***' for _ in hidden)}"
    ]


def test_a_url_without_a_password_is_itself_a_secret():
    assert secrets("postgresql://boss@/farm?host=/run/pg") == ["postgresql://boss@/farm?host=/run/pg"]


def test_lines_end_as_terminals_know_it():
    assert printed("10 %\r20 %\r\n\n  done\nand") == ["10 %", "20 %", "done", "and"]


def test_a_line_without_an_end_fills_no_memory():
    lines = Lines(["hush"])
    for _ in range(100):
        assert lines.feed(b"x" * LINE_BYTES_AT_MOST + b"hush") == []
        assert len(lines._rest) <= LINE_BYTES_AT_MOST
    assert lines.feed(b"hush\nnext\n") == [TOO_LONG, "next"]


@given(st.text(max_size=60), st.lists(st.integers(0, 1000), max_size=6))
def test_pieces_make_no_difference(text, cuts):
    assert printed(text, cuts=cuts) == printed(text)


@given(
    st.lists(st.text("ab@%/", min_size=1, max_size=4), min_size=1, max_size=3),
    st.text("ab@%/\n", max_size=40),
    st.lists(st.integers(0, 100), max_size=6),
)
def test_no_secret_is_ever_printed(hidden, text, cuts):
    for line in printed(text, hidden, cuts):
        assert not [each for each in hidden if each in line]


@given(st.text(min_size=1, max_size=20).filter(lambda text: "*" not in text and text.splitlines() == [text]))
def test_the_password_of_any_url_is_hidden(password):
    for url in (
        f"postgresql://boss:{hiding.quote(password, safe='')}@db/farm",
        "host=db password='{}'".format(password.replace("\\", r"\\").replace("'", r"\'")),
    ):
        for line in printed(f"it is {password}", secrets(url)):
            assert password not in line.removeprefix("it is")
