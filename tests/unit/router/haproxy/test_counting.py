"""What HAProxy counted, read right or not at all, and given to the version that it belongs to."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun import latency
from milkrun.errors import DataPlaneError
from milkrun.model import Figures, InstanceId, ServiceName, VersionName
from milkrun.router.haproxy import counting
from milkrun.router.plane import InstanceCounted

GOAT = ServiceName("goat")
V1, V2 = VersionName("v1"), VersionName("v2")
CLASSES = "hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other"
HEAD = f"# pxname,svname,scur,stot,bin,bout,econ,eresp,rtime,type,mode,{CLASSES}"
REPLY = f"""\
Name: HAProxy
Pid: 4711
Jobs: 4
Unstoppable Jobs: 1
Listeners: 3

{HEAD}
goat.a,spill,1,30,300,3000,0,0,7,2,http,0,20,0,0,10,0
goat.a,a1,3,70,0,0,1,9,20,2,http,0,50,5,5,3,0
goat.a,a2,1,35,0,0,0,0,30,2,http,0,30,0,4,0,0
goat.a,BACKEND,5,130,1300,13000,0,0,9,1,http,0,100,5,10,14,1

{HEAD}
goat.b,spill,0,0,0,0,0,0,0,2,http,0,0,0,0,0,0
goat.b,BACKEND,0,7,70,700,0,0,0,1,http,0,7,0,0,0,0

{HEAD}
goat.all,b1,1,30,300,3000,0,0,0,2,http,0,20,0,0,6,0
goat.all,stranger,0,1,1,1,0,0,0,2,http,0,1,0,0,0,0
goat.all,BACKEND,1,31,301,3001,0,0,0,1,http,0,21,0,0,10,0

# table: goat.latency/a, type: integer, size:1024, used:3
0x7f00: key=36 use=0 exp=0 shard=0 http_req_cnt=5
0x7f01: key=71 use=1 exp=0 shard=0 http_req_cnt=2
0x7f02: key=0 use=1 exp=0 shard=0 http_req_cnt=1

# table: goat.latency/b, type: integer, size:1024, used:0

"""


def test_each_lane_and_each_of_the_pools_servers_counts_for_its_version():
    found = counting.counted(counting.reading(REPLY), GOAT, 2, {0: V1, 1: V2}, {InstanceId("b1"): V2})

    a, b, b1, stranger = found
    assert (a.process, a.place, a.version, a.in_flight) == (4711, "goat.a", V1, 4)
    assert a.figures == Figures(
        requests=110,  # the pool's 20 good answers count for who gave them, its failures here
        failures=14,
        answers={"2xx": 80, "3xx": 5, "4xx": 10, "5xx": 14, "other": 1},
        bytes_in=1000,
        bytes_out=10000,
        latency={0: 1, 36: 5, 71: 2},
    )
    assert (b.version, b.figures.requests, b.figures.latency) == (V2, 7, {})
    assert (b1.place, b1.version, b1.figures.answers) == ("goat.all/b1", V2, {"2xx": 20})
    assert (b1.figures.requests, b1.figures.failures) == (20, 0)
    assert stranger.version is None


def test_in_a_lane_that_was_asked_for_each_server_has_its_own_figures():
    """What was tried, is over and got no answer failed; and no more than HAProxy saw fail."""
    a, b, *_ = counting.counted(counting.reading(REPLY), GOAT, 2, {0: V1, 1: V2}, {}, each={0, 1})

    assert a.instances == {
        "a1": InstanceCounted(tried=70, requests=63 + 4, failures=3 + 4, mean_ms=20),
        "a2": InstanceCounted(tried=35, requests=34, mean_ms=30),
    }
    assert b.instances == {}


def test_a_lane_that_was_not_asked_for_says_nothing_of_its_servers():
    found = counting.counted(counting.reading(REPLY), GOAT, 2, {0: V1, 1: V2}, {}, each={1})

    assert [one.instances for one in found] == [None, {}, None, None]
    assert [line for line in counting.questions(GOAT, 2, pool=False, each={1}) if "stat" in line] == [
        "show stat goat.a 6 1",
        "show stat goat.b 6 -1",
        "show stat goat.all 2 -1",
    ]


def test_connections_are_counted_where_nobody_speaks_http():
    line = "goat.a,BACKEND,2,12,100,200,3,1,0,1,tcp,,,,,,"
    spill = "goat.a,spill,0,0,0,0,0,0,0,2,tcp,,,,,,"
    one = "goat.a,a1,2,12,100,200,2,1,0,2,tcp,,,,,,"
    reply = f"Pid: 1\nJobs: 2\nUnstoppable Jobs: 1\n\n{HEAD}\n{line}\n{spill}\n{one}\n\n"

    [found] = counting.counted(counting.reading(reply), GOAT, 1, {0: V1}, {}, each={0})

    assert found.figures == Figures(requests=12, failures=4, bytes_in=100, bytes_out=200)
    assert found.instances == {"a1": InstanceCounted(tried=12, requests=12, failures=3)}


def test_a_haproxy_without_tables_still_counts_requests():
    reply = REPLY.partition("# table")[0] + "No such table\n\n"

    found = counting.counted(counting.reading(reply), GOAT, 2, {0: V1}, {})

    assert (found[0].figures.requests, found[0].figures.latency) == (110, {})


@given(st.integers(0, 10**10))
def test_haproxy_is_given_the_same_buckets_as_everybody_has(took):
    found = [
        int(number)
        for line in counting.buckets().splitlines()
        for places, number in [line.split()]
        for start, end in [places.split(":")]
        if int(start) <= took and (not end or took <= int(end))
    ]

    assert found == [latency.bucket(took)]


def test_a_lane_that_is_not_told_is_an_error():
    with pytest.raises(DataPlaneError, match=r"goat\.c"):
        counting.counted(counting.reading(REPLY), GOAT, 3, {}, {})
    with pytest.raises(DataPlaneError):
        counting.reading(HEAD)


@given(st.data())
def test_garbage_raises_nothing_else(data):
    start = data.draw(st.integers(0, len(REPLY)))
    length = data.draw(st.integers(0, 30))
    garbage = data.draw(st.text(max_size=30))
    with contextlib.suppress(DataPlaneError):
        counting.counted(
            counting.reading(REPLY[:start] + garbage + REPLY[start + length :]), GOAT, 2, {}, {}, each={0, 1}
        )
