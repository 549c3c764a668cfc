"""What strangers say of who called is taken away: which header names the patterns take, and which they leave."""

from __future__ import annotations

import re
from itertools import product

import pytest

from milkrun.router.haproxy import entrance

SAID = [
    "forwarded",
    *(f"x{sign}{name}" for sign, name in product("-_.", ["forwarded", "forwarded-for", "real-ip"])),
]
OURS = [f"x{sign}milkrun{end}" for sign, end in product("-_", ["", "-version", "_version"])]
ELSE = [
    "host",
    "x-request-id",
    "x-forwardedfor",
    "xforwarded-for",
    "x-really-ip",
    "x-milkruns",
    "forwarded-x",
    "via",
]


def taken(lines: list[str]) -> list[re.Pattern[str]]:
    return [re.compile(found[1]) for line in lines if (found := re.search(r"del-header '(.*)' -m reg", line))]


@pytest.mark.parametrize("trust", [(), ("10.0.0.0/8",)])
def test_headers_that_say_who_called_are_taken_and_no_others(trust):
    patterns = taken(list(entrance.believed(trust, tls=False)))

    assert [name for name in SAID + OURS if not any(each.search(name) for each in patterns)] == []
    assert [name for name in ELSE if any(each.search(name) for each in patterns)] == []


def test_a_network_in_trust_is_believed_what_it_says_of_callers_and_nothing_of_milkruns_own():
    said, ours = (line for line in entrance.believed(["10.0.0.0/8"], tls=False) if "-m reg" in line)

    assert said.endswith(" unless trusted")
    assert "milkrun" not in said
    assert "unless" not in ours


@pytest.mark.parametrize(("tls", "proto"), [(True, "https"), (False, "http")])
def test_the_protocol_is_the_one_by_which_the_listener_listens(tls, proto):
    lines = list(entrance.believed((), tls=tls))

    assert f"  http-request set-header x-forwarded-proto {proto}" in lines
