"""What HAProxy counts for each version: the lines that make it count latency, and its answers as figures. Pure.

Requests, answers by class and bytes are HAProxy's own counters of each lane. Latency is counted inside it too: each
lane has a table whose keys are the buckets of latency.py and whose values are how many answers fell into each. Logging
every request instead costs about a third more of the processor (benchmarks/counting.py).

- Up to BRISK requests a second in a lane every answer is timed, above it one in SAMPLED: so it costs little where it
  matters.
- The tables stand in a section of peers that is disabled: a worker that ends empties the tables of its backends at
  once, but not these, so they can be read to the end (2.8.25).
- What a lane with nobody left hands to the pool: an answer counts for the version that gave it, a failure for the
  version that had nobody. It is not timed.
- In a lane with few servers each one is asked what it had, too. HAProxy counts its answers, and how often it was tried;
  what was tried and got no answer failed, as far as HAProxy's own count of bad answers goes (which counts some twice).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping

import msgspec

from milkrun import latency
from milkrun.errors import DataPlaneError
from milkrun.model import Figures, InstanceId, ServiceName, VersionName
from milkrun.router.haproxy import encode
from milkrun.router.plane import Counted, InstanceCounted

BRISK = 1000
SAMPLED = 16
BUCKETS_FILE = "latency.buckets"
"""Beside HAProxy's file: which time in microseconds falls into which bucket. No service's map has such a name."""

_SPILL = "spill"
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
_NUMBERS = (
    *(f"hrsp_{name}" for name in _CLASSES),
    "scur",
    "stot",
    "bin",
    "bout",
    "econ",
    "eresp",
    "rtime",
    "type",
)
_BACKEND, _SERVER = 1, 2


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `show stat`: of a backend, or of one server."""

    backend: str
    name: str
    kind: int
    in_flight: int
    figures: Figures
    http: bool
    tried: int
    bad: int
    mean_ms: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker said: its process, its counters, and each table's histogram."""

    process: int
    rows: list[Row]
    tables: dict[str, dict[int, int]]
    jobs: int
    """What it still has to do before it may end, listeners apart: connections, this one too."""


def tables(service: ServiceName, lanes: int) -> Iterator[str]:
    """The section with the service's tables, one a lane."""
    yield from ("", f"peers {_home(service)}", "  disabled")
    for number in range(lanes):
        name = encode.lane(service, number).rpartition(".")[2]
        yield f"  table {name} type integer size {len(latency.BOUNDS_US)} store http_req_cnt"


def timed(service: ServiceName, number: int) -> Iterator[str]:
    """The lines that make a lane's backend time its answers."""
    yield f"  http-request set-var(txn.began) date(0,us) if {{ be_sess_rate lt {BRISK} }} or {{ rand({SAMPLED}) 0 }}"
    bucket = f"date(0,us),sub(txn.began),map_int({BUCKETS_FILE})"
    own = f"if {{ var(txn.began) -m found }} !{{ srv_name {_SPILL} }}"
    yield f"  http-response track-sc0 {bucket} table {_table(service, number)} {own}"


def buckets() -> str:
    """What BUCKETS_FILE has."""
    ends = [f"{end - 1}" for end in latency.BOUNDS_US[1:]] + [""]
    return "".join(
        f"{start}:{end} {number}\n"
        for number, (start, end) in enumerate(zip(latency.BOUNDS_US, ends, strict=True))
    )


def _home(service: ServiceName) -> str:
    return f"{encode.service(service)}.latency"


def _table(service: ServiceName, number: int) -> str:
    return f"{_home(service)}/{encode.lane(service, number).rpartition('.')[2]}"


def questions(
    service: ServiceName, lanes: int, *, pool: bool, each: Collection[int] = frozenset()
) -> list[str]:
    """What to ask a worker. The first server of a lane is `spill`. `pool` asks for each of the pool's servers, `each`
    for those of these lanes.
    """
    numbers = range(lanes)
    backends = f"{encode.service(service)}.all"
    return [
        "show info",
        *(f"show stat {encode.lane(service, number)} 6 {-1 if number in each else 1}" for number in numbers),
        f"show stat {backends} {6 if pool else 2} -1",
        *(f"show table {_table(service, number)}" for number in numbers),
    ]


def reading(replies: str) -> Reading:
    """The replies to all questions, one after the other, as values. A lane without a table has no latency: HAProxy
    still runs from the file of a Milkrun that did not count it.
    """
    info: dict[str, int] = {}
    rows: list[Row] = []
    found: dict[str, dict[int, int]] = {}
    columns: list[str] | None = None
    table: dict[int, int] = {}
    try:
        for line in replies.splitlines():
            if line.startswith("# pxname,"):
                columns = line.removeprefix("# ").split(",")
            elif match := re.match(r"# table: (\S+), ", line):
                columns, table = None, found.setdefault(match[1], {})
            elif not line:
                columns = None
            elif columns:
                rows.append(_row(dict(zip(columns, next(csv.reader([line])), strict=True))))
            elif match := re.fullmatch(r"0x\w+: key=(\d+) .*\bhttp_req_cnt=(\d+).*", line):
                table[int(match[1])] = int(match[2])
            elif match := re.fullmatch(r"(Pid|Jobs|Unstoppable Jobs): (\d+)", line):
                info[match[1]] = int(match[2])
        jobs = info["Jobs"] - info["Unstoppable Jobs"]
        return Reading(process=info["Pid"], rows=rows, tables=found, jobs=jobs)
    except (KeyError, ValueError, StopIteration) as error:
        raise DataPlaneError(
            f"HAProxy's counters cannot be read: {replies[-200:]!r} is not, or not all of, an answer"
        ) from error


def _row(line: Mapping[str, str]) -> Row:
    number = {name: int(line[name] or 0) for name in _NUMBERS}
    answers = {name: count for name in _CLASSES if (count := number[f"hrsp_{name}"])}
    http = line["mode"] == "http"
    return Row(
        backend=line["pxname"],
        name=line["svname"],
        kind=number["type"],
        in_flight=number["scur"],
        figures=Figures(
            requests=sum(answers.values()) if http else number["stot"],
            failures=answers.get("5xx", 0) if http else number["econ"] + number["eresp"],
            answers=answers,
            bytes_in=number["bin"],
            bytes_out=number["bout"],
        ),
        http=http,
        tried=number["stot"],
        bad=number["econ"] + number["eresp"],
        mean_ms=number["rtime"],
    )


def pooled(found: Reading, service: ServiceName) -> bool:
    """Whether the pool ever had a request: only then its servers are worth asking."""
    return any(row.figures.requests for row in found.rows if row.backend == f"{service}.all")


def counted(
    found: Reading,
    service: ServiceName,
    lanes: int,
    versions: Mapping[int, VersionName],
    instances: Mapping[InstanceId, VersionName],
    *,
    each: Collection[int] = frozenset(),
) -> list[Counted]:
    """The figures of each lane, of which `versions` says whose it is, and of each of the pool's servers. Of the lanes
    in `each`, all servers were asked for.
    """
    backends: dict[str, dict[int, Row]] = {}
    for row in found.rows:
        if row.name in ("BACKEND", _SPILL):
            backends.setdefault(row.backend, {})[row.kind] = row
    pool = [row for row in found.rows if row.backend == f"{service}.all" and row.kind == _SERVER]
    return [
        *(
            _lane(found, service, number, backends, versions.get(number), each=number in each)
            for number in range(lanes)
        ),
        *(
            Counted(
                process=found.process,
                place=f"{row.backend}/{row.name}",
                version=instances.get(InstanceId(row.name)),
                in_flight=row.in_flight,
                figures=_well(row.figures),
            )
            for row in pool
        ),
    ]


def _lane(
    found: Reading,
    service: ServiceName,
    number: int,
    backends: Mapping[str, Mapping[int, Row]],
    version: VersionName | None,
    *,
    each: bool,
) -> Counted:
    lane = encode.lane(service, number)
    try:
        whole, spilt = (backends[lane][kind] for kind in (_BACKEND, _SERVER))
    except KeyError as error:
        raise DataPlaneError(f"HAProxy does not say what {lane} counted") from error
    return Counted(
        process=found.process,
        place=lane,
        version=version,
        in_flight=max(0, whole.in_flight - spilt.in_flight),
        figures=_without(
            whole.figures,
            _well(spilt.figures),
            latency.merged([found.tables.get(_table(service, number), {})]),
        ),
        instances=_instances(found.rows, lane) if each else None,
    )


def _instances(rows: list[Row], lane: str) -> dict[InstanceId, InstanceCounted]:
    return {
        InstanceId(row.name): _instance(row)
        for row in rows
        if row.backend == lane and row.kind == _SERVER and row.name != _SPILL
    }


def _instance(row: Row) -> InstanceCounted:
    """What a server had. Of HTTP only what it answered is among its own counters."""
    unanswered = min(row.bad, max(0, row.tried - row.in_flight - row.figures.requests)) if row.http else 0
    return InstanceCounted(
        tried=row.tried,
        requests=row.figures.requests + unanswered,
        failures=row.figures.failures + unanswered,
        mean_ms=row.mean_ms,
    )


def _well(figures: Figures) -> Figures:
    """What of them did not fail."""
    return Figures(
        requests=figures.requests - figures.failures,
        answers={name: count for name, count in figures.answers.items() if name != "5xx"},
        bytes_in=figures.bytes_in,
        bytes_out=figures.bytes_out,
    )


def _without(whole: Figures, gone: Figures, histogram: dict[int, int]) -> Figures:
    """What stays a lane's own of all that it had. HAProxy counts the two a moment apart."""
    answers = {name: count - gone.answers.get(name, 0) for name, count in whole.answers.items()}
    return Figures(
        requests=max(0, whole.requests - gone.requests),
        failures=whole.failures,
        answers={name: count for name, count in answers.items() if count > 0},
        bytes_in=max(0, whole.bytes_in - gone.bytes_in),
        bytes_out=max(0, whole.bytes_out - gone.bytes_out),
        latency=histogram,
    )
