"""What the router's HAProxy carries against hand-written files for the same program, and against other proxies.

    benchmarks/parts.sh; .venv/bin/python benchmarks/peers.py [--rounds N] [--seconds S] [--only NAME,NAME] [--json]

Each has one service with four instances (one HAProxy that answers by itself), and is loaded by `wrk` (Debian's package)
on 64 kept connections. In each round every one has its turn alone (throughput, p99), and then each is loaded at the
same time as the careful file, on the same cores: the ratio of their processor time a request is what other programs on
the machine disturb least. Of all rounds' ratios to the careful file the median counts, and the quartiles say how much
they differ. The driven one splits the requests over two versions, knows its callers, counts latency and probes its
instances; proxies.py says what the others do.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from ports import free_port
from proxies import Load, Proxy, all_here
from router import answered, haproxies, running

from milkrun.router.haproxy import binary

UPSTREAM = """\
defaults
  mode http
  timeout client 1m
  timeout connect 1s
  timeout server 1m
frontend up
  bind 0.0.0.0:{port}
  http-request return status 200 content-type text/plain string "0123456789"
"""


def processor_s(proxy: Proxy) -> float:
    """What the proxy's processes have taken of the processors, all threads together."""
    tasks = [task for pid in haproxies(proxy.folder) for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def loaded(proxies: Iterable[Proxy], seconds: int) -> list[Load]:
    """What each carried, all of them loaded at the same time."""
    many = list(proxies)
    before = [processor_s(proxy) for proxy in many]
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "--latency"]
    clients = [
        subprocess.Popen([*command, f"http://127.0.0.1:{proxy.port}/"], stdout=subprocess.PIPE, text=True)
        for proxy in many
    ]
    said = [client.communicate()[0] for client in clients]
    return [
        _load(text, processor_s(proxy) - spent) for proxy, text, spent in zip(many, said, before, strict=True)
    ]


def _load(said: str, cpu_s: float) -> Load:
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    p99 = re.search(r"99% +([\d.]+)(us|ms|s)", said)
    if not requests or not int(requests[1]) or not rate or not p99 or "Non-2xx" in said:
        sys.exit(f"wrk says:\n{said}")
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return Load(float(rate[1]), float(p99[1]) * scale, cpu_s / int(requests[1]) * 1e6)


def measure(
    folder: Path, names: list[str], against: str, rounds: int, seconds: int, *, pin: bool
) -> dict[str, Proxy]:
    makers = all_here()
    cores = sorted(os.sched_getaffinity(0))
    apart = (set(cores[:-1]), {cores[-1]}) if pin and len(cores) > 1 else (set(cores), set(cores))
    os.sched_setaffinity(0, apart[0])  # what is started from here on inherits it
    upstream = free_port()
    (folder / "upstream.cfg").write_text(UPSTREAM.format(port=upstream))
    with ExitStack() as held:
        held.enter_context(
            running([binary.find().path, "-db", "-f", str(folder / "upstream.cfg")], folder / "log", cwd="/")
        )
        answered(upstream)
        proxies: dict[str, Proxy] = {}
        for name in names:
            (folder / name).mkdir(mode=0o700)
            os.sched_setaffinity(0, apart[1])
            proxies[name] = held.enter_context(makers[name](folder / name, upstream))
            os.sched_setaffinity(0, apart[0])
            answered(proxies[name].port)
        for proxy in proxies.values():
            loaded([proxy], 1)  # warm
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                proxies[name].loads += loaded([proxies[name]], seconds)
            for name in names:
                if name != against:
                    one, other = loaded([proxies[name], proxies[against]], 1)
                    proxies[name].together.append(one.cpu_us / other.cpu_us)
    return proxies


def row(name: str, proxy: Proxy, other: Proxy) -> dict[str, object]:
    """The medians, and the medians of the ratios to the other with their quartiles."""
    fields = ("rate", "p99_ms", "cpu_us")
    ratios = {
        field: [getattr(a, field) / getattr(b, field) for a, b in zip(proxy.loads, other.loads, strict=True)]
        for field in ("rate", "p99_ms")
    }
    ratios["cpu"] = proxy.together or [1.0]
    return {
        "what": name,
        **{field: statistics.median(getattr(load, field) for load in proxy.loads) for field in fields},
        "ratios": {field: _quartiles(values) for field, values in ratios.items()},
    }


def _quartiles(values: list[float]) -> list[float]:
    """The lower quartile, the median and the upper one."""
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], statistics.median(ordered), ordered[3 * len(ordered) // 4]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="", help="these alone, and the one to compare with")
    parser.add_argument("--against", default="careful file")
    parser.add_argument("--pin", action="store_true", help="the proxies on one core, all others on the rest")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("this loads with wrk, which is not here: install Debian's package")
    only = [name for name in given.only.split(",") if name]
    names = [name for name in all_here() if not only or name in {*only, given.against}]
    with tempfile.TemporaryDirectory() as folder:
        proxies = measure(Path(folder), names, given.against, given.rounds, given.seconds, pin=given.pin)
    rows = [row(name, proxy, proxies[given.against]) for name, proxy in proxies.items()]
    if given.json:
        told = {"schema_version": 2, "cores": os.cpu_count(), "against": given.against, "rows": rows}
        print(json.dumps(told))
        return
    print(f"{'':14}{'1/s':>9}{'p99 ms':>9}{'cpu us':>8}   ratios to the {given.against}: rate, p99, cpu")
    for each in rows:
        found = each["ratios"]
        assert isinstance(found, dict)
        spread = "".join(f"{mid:>9.3f} [{low:.2f} {high:.2f}]" for low, mid, high in found.values())
        print(f"{each['what']:14}{each['rate']:>9,.0f}{each['p99_ms']:>9.2f}{each['cpu_us']:>8.1f}{spread}")


if __name__ == "__main__":
    main()
