"""HAProxy's replies: read right, or an error. Never an empty answer, never another kind of exception."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milkrun.errors import DataPlaneError
from milkrun.router.desired import Mode
from milkrun.router.haproxy import parse
from milkrun.router.placement import Span, totals

STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
srv_agent_addr srv_agent_port
6 goat.a 1 spill - 2 0 1 1 3 1 0 2 0 0 0 0 - 0 - 0 0 - - 0
6 goat.a 2 well 127.0.0.1 2 0 7 7 3 6 3 2 6 0 0 0 - 8101 - 0 0 - - 0
6 goat.a 3 dead 127.0.0.1 0 0 1 1 3 6 3 2 6 0 0 0 - 8102 - 0 0 - - 0
6 goat.a 4 draining ::ffff:127.0.0.1 2 8 1 1 3 6 3 2 6 0 0 0 - 8103 - 0 0 - - 0
6 goat.a 5 resting 127.0.0.1 0 5 1 1 3 6 3 2 6 0 0 0 - 8104 - 0 0 - - 0
14 goat.all 1 once-disabled ::1.2.3.4 2 4 1 1 3 6 3 2 6 0 0 0 - 8105 - 0 0 - - 0

"""
HEAD = "pxname,svname,qcur,scur,type"
STAT = f"# {HEAD}\ngoat.a,well,2,3,2\ngoat.a,spill,,,2\n\n"
PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
100             master          1 [failed: 0]   0d00h00m01s     2.8.25
# workers
102             worker          0               0d00h00m00s     2.8.25
# old workers
101             worker          1               0d00h00m01s     2.8.25
99              worker          2               0d00h00m01s     2.8.25
# programs

"""
MAP = "0x7f00a0 0:8999 goat.a\n0x7f00b0 9000:9999 goat.b\n\n"


def test_servers_are_read_as_they_serve():
    found = parse.servers_state(STATE)

    assert {name: seen.server.mode for name, seen in found["goat.a"].items()} == {
        "well": Mode.SERVE,
        "dead": Mode.SERVE,
        "draining": Mode.DRAIN,
        "resting": Mode.DRAIN,
    }
    assert [name for name, seen in found["goat.a"].items() if not seen.up] == ["dead"]
    assert (found["goat.a"]["well"].server.port, found["goat.a"]["well"].server.weight) == (8101, 7)
    assert found["goat.all"]["once-disabled"].server.mode is Mode.SERVE
    assert found["goat.all"]["once-disabled"].server.address == "::102:304"
    assert found["goat.a"]["draining"].server.address == "::ffff:7f00:1"


def test_requests_in_flight_are_those_served_and_those_queued():
    assert parse.stat(STAT) == {("goat.a", "well"): 5, ("goat.a", "spill"): 0}


def test_what_is_quoted_in_a_later_column_is_passed_over():
    head = "pxname,svname,qcur,qmax,scur,last_chk"
    reply = f'# {head}\ngoat.a,well,1,9,2,"says ""no"", 5"\n\n# {head}\ngoat.b,b,0,0,0,\n\n'

    assert parse.stat(reply) == {("goat.a", "well"): 3, ("goat.b", "b"): 0}


@pytest.mark.parametrize(
    "line", ['"goat.a",well,0,0,2', "goat.a,well,0,x,2", "goat.a,well,0", "goat.a,well,0,2"]
)
def test_a_line_that_is_none_of_a_server_is_an_error(line):
    with pytest.raises(DataPlaneError):
        parse.stat(f"# {HEAD}\n{line}\n\n")


def test_former_workers_and_all_workers():
    assert parse.former_workers(PROC) == 2
    assert parse.workers(PROC) == [102, 101, 99]
    alone = PROC.partition("# old workers")[0] + "# programs\n\n"
    assert parse.former_workers(alone) == 0


def test_shares_are_counted_and_odd_entries_are_somebodys_share():
    assert totals(parse.shares_map(MAP)) == {"goat.a": 9000, "goat.b": 1000}
    assert parse.shares_map("\n") == ()
    assert parse.shares_map("0x1 12 goat.c\n0x2 5:5 goat.a\n\n") == (
        Span(0, 0, "12 goat.c"),
        Span(5, 5, "goat.a"),
    )


READERS = [
    (parse.servers_state, STATE),
    (parse.stat, STAT),
    (parse.former_workers, PROC),
    (parse.workers, PROC),
]


@pytest.mark.parametrize(("read", "reply"), READERS)
def test_a_reply_that_broke_off_anywhere_is_an_error(read, reply):
    for end in range(len(reply)):
        with pytest.raises(DataPlaneError):
            read(reply[:end])


@pytest.mark.parametrize(("read", "reply"), [*READERS, (parse.shares_map, MAP)])
@pytest.mark.parametrize(
    "error", ["Unknown command.\n\n", "Permission denied\n\n", "", "\0\0", "Unknown map identifier.\n\n"]
)
def test_an_error_is_no_empty_answer(read, reply, error):
    with pytest.raises(DataPlaneError):
        read(error)


@given(st.sampled_from([*READERS, (parse.shares_map, MAP)]), st.data())
def test_garbage_raises_nothing_else(case, data):
    read, reply = case
    start = data.draw(st.integers(0, len(reply)))
    length = data.draw(st.integers(0, 30))
    text = reply[:start] + data.draw(st.text(max_size=20)) + reply[start + length :]
    with contextlib.suppress(DataPlaneError):
        read(text)


def test_whether_a_worker_takes_no_new_connection():
    assert parse.stopping("Pid: 7\nStopping: 1\nJobs: 3\n\n")
    assert not parse.stopping("Pid: 7\nStopping: 0\nJobs: 3\n\n")
    with pytest.raises(DataPlaneError):
        parse.stopping("Can't connect to the target CLI!\n")


def test_a_master_of_2_6_says_how_often_it_was_reloaded_and_how_often_in_vain():
    head = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n"
    rest = "   0d00h00m01s     2.6.12-1+deb12u3\n# workers\n17127           worker          1   0d\n\n"

    assert parse.master_reloads(f"{head}17119           master          2 [failed: 1]{rest}") == (2, 1)
    with pytest.raises(DataPlaneError):
        parse.master_reloads(head + "\n")
