"""From a change in the registry to the traffic: Milkrun's router beside who else follows the same registry.

    .venv/bin/python benchmarks/followers.py [--blocks N] [--rounds N] [--json]

Four instances of two versions behind each of: Milkrun's router; the classic loop of classic.py (watch, render, check,
reload); Traefik's provider of Consul's catalog, with `watch`; and Traefik's provider of Consul's keys, whose own keys
get the same change in one transaction. Traefik gathers changes for 100 ms in place of its 2 s. In each block each of
them is started and changed in turn, alone, under the one registry.

A change is timed from the registry's acknowledgement to a client's answer: of the new instance (add), the last one of
the instance that is taken out (remove), and the first one of the version that all traffic moves to (weight). The client
asks one request after the other, each on a new connection. Traefik's catalog provider has no share of a version.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from ports import free_port
from router import NEW, Client, Place, classic, registered, router, running, site, weights

SIZE = 4
PAUSE_S = 0.5
SEEN_S = 60.0
QUIET = 3 * (SIZE + 1)
"""So many answers in a row without an instance, and it gets none any more: all of these take turns."""
KINDS = ("weight", "add", "remove")
OURS = "Milkrun"

Figures = dict[str, dict[str, list[float]]]


def address(number: int) -> str:
    return str(registered(NEW, number, 1)["Address"])


EVERYBODY = [*range(SIZE)]
ODD, EVEN = ({address(number) for number in EVERYBODY if number % 2 == rest} for rest in (1, 0))
COMER = SIZE + 1
"""It is of the odd ones' version."""


class Follower(NamedTuple):
    """Who follows the registry: how it is started, and how each change is made for it, until it is acknowledged."""

    name: str
    started: Callable[[Place, Client], contextlib.AbstractContextManager[int]]
    weight: Callable[[Client, int], float] | None
    add: Callable[[Client, Place], float]
    remove: Callable[[Client], float]


# The changes


def come(client: Client, place: Place) -> float:
    return client.put("/v1/catalog/register", registered(NEW, COMER, place.upstream))


def gone(client: Client) -> float:
    return client.put("/v1/catalog/deregister", {"Node": f"node-{COMER % 50}", "ServiceID": NEW})


def keys_set(client: Client, entries: dict[str, str]) -> float:
    return client.put("/v1/txn", [_operation("set", key, value) for key, value in entries.items()])


def _operation(verb: str, key: str, value: str) -> dict[str, object]:
    text = base64.b64encode(value.encode()).decode()
    return {"KV": {"Verb": verb, "Key": f"traefik/http/{key}", "Value": text}}


def keys_weight(client: Client, first: int) -> float:
    shares = (first, 100 - first)
    place = "services/goat/weighted/services"
    return keys_set(client, {f"{place}/{number}/weight": str(share) for number, share in enumerate(shares)})


def keys_come(client: Client, place: Place) -> float:
    return keys_set(client, _server(COMER, place.upstream))


def keys_gone(client: Client) -> float:
    return client.put("/v1/txn", [_operation("delete", next(iter(_server(COMER, 0))), "")])


def _server(number: int, port: int) -> dict[str, str]:
    version = "odd" if number % 2 else "even"
    return {f"services/{version}/loadbalancer/servers/{number}/url": f"http://{address(number)}:{port}"}


# The followers


@contextlib.contextmanager
def milkrun_router(place: Place, _: Client) -> Iterator[int]:
    with router(place, SIZE):
        yield place.router


@contextlib.contextmanager
def classic_loop(place: Place, _: Client) -> Iterator[int]:
    with classic(place, SIZE):
        yield place.classic


@contextlib.contextmanager
def traefik(place: Place, name: str, *options: str) -> Iterator[int]:
    port = free_port()
    folder = place.folder / name
    folder.mkdir()
    command = [
        str(Path(sys.executable).parent / "traefik"),
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        f"--entrypoints.web.address=127.0.0.1:{port}",
        "--providers.providersthrottleduration=100ms",
        *options,
    ]
    with running(command, folder / "log", cwd=folder):
        yield port


@contextlib.contextmanager
def of_catalog(place: Place, _: Client) -> Iterator[int]:
    with traefik(
        place,
        "traefik-catalog",
        "--providers.consulcatalog=true",
        f"--providers.consulcatalog.endpoint.address=127.0.0.1:{place.registry}",
        "--providers.consulcatalog.watch=true",
        "--providers.consulcatalog.refreshinterval=600s",
        "--providers.consulcatalog.defaultrule=PathPrefix(`/`) && Host(`{{ .Name }}`)",
    ) as port:
        yield port


@contextlib.contextmanager
def of_keys(place: Place, client: Client) -> Iterator[int]:
    entries = {"routers/goat/rule": "PathPrefix(`/`)", "routers/goat/service": "goat"}
    for number, version in enumerate(("odd", "even")):
        entries[f"services/goat/weighted/services/{number}/name"] = version
    for number in EVERYBODY:
        entries |= _server(number, place.upstream)
    keys_set(client, entries)
    keys_weight(client, 50)
    with traefik(
        place,
        "traefik-keys",
        "--providers.consul=true",
        f"--providers.consul.endpoints=127.0.0.1:{place.registry}",
        "--providers.consul.rootkey=traefik",
    ) as port:
        yield port


FOLLOWERS = (
    Follower(OURS, milkrun_router, weights, come, gone),
    Follower("classic loop", classic_loop, weights, come, gone),
    Follower("Traefik, catalog", of_catalog, None, come, gone),
    Follower("Traefik, keys", of_keys, keys_weight, keys_come, keys_gone),
)


# The client


def asked(port: int) -> str:
    """Who answered a request; empty for nobody. A connection that a reload refuses is made again."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: goat\r\nConnection: close\r\n\r\n")
        reply = b""
        while chunk := connection.recv(1 << 16):
            reply += chunk
        if reply.startswith(b"HTTP/1.1 200"):
            return next(
                word for word in reply.decode().split() if word.startswith("127.") and ":" not in word
            )
    return ""


def first(port: int, wanted: set[str]) -> float:
    """When one of these answered."""
    end = time.perf_counter() + SEEN_S
    while asked(port) not in wanted:
        if time.perf_counter() > end:
            sys.exit(f"none of {wanted} answered in {SEEN_S} s")
    return time.perf_counter()


def last(port: int, leaving: set[str], since: float) -> float:
    """When one of these answered for the last time, `since` at the earliest."""
    end = time.perf_counter() + SEEN_S
    found, without = since, 0
    while without < QUIET:
        without += 1
        if asked(port) in leaving:
            found, without = time.perf_counter(), 0
        if found > end:
            sys.exit(f"{leaving} answers still after {SEEN_S} s")
    return found


# The measurement


def measured(follower: Follower, place: Place, client: Client, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of `rounds` changes of each kind."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    comer = {address(COMER)}
    weights(client, 50)
    with follower.started(place, client) as port:
        for whose in (ODD, EVEN):
            first(port, whose)
        if follower.weight:
            follower.weight(client, 100)
            last(port, EVEN, time.perf_counter())
        for _ in range(rounds):
            time.sleep(PAUSE_S)
            acknowledged = follower.add(client, place)
            found["add"].append((first(port, comer) - acknowledged) * 1000)
            time.sleep(PAUSE_S)
            acknowledged = follower.remove(client)
            found["remove"].append((last(port, comer, acknowledged) - acknowledged) * 1000)
            for share, whose in ((0, EVEN), (100, ODD)):
                if follower.weight:
                    time.sleep(PAUSE_S)
                    acknowledged = follower.weight(client, share)
                    found["weight"].append((first(port, whose) - acknowledged) * 1000)
    return found


def block(rounds: int) -> Figures:
    """Each of them once, in turn."""
    with tempfile.TemporaryDirectory() as folder, site(Path(folder) / "site", SIZE) as (place, client):
        return {follower.name: measured(follower, place, client, rounds) for follower in FOLLOWERS}


def ratio(blocks: list[Figures], name: str, kind: str) -> float:
    """The median over the blocks of the ratios of the medians within one, to ours."""
    return statistics.median(
        statistics.median(one[name][kind]) / statistics.median(one[OURS][kind]) for one in blocks
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    blocks = [block(given.rounds) for _ in range(given.blocks)]
    if given.json:
        print(json.dumps({"schema_version": 1, "blocks": blocks}))
        return
    for kind in KINDS:
        for name in blocks[0]:
            values = sorted(value for one in blocks for value in one[name][kind])
            if values:
                figures = (
                    f"{statistics.median(values):>9.1f}{values[-1]:>9.1f}{ratio(blocks, name, kind):>8.1f}"
                )
                print(f"{kind:8}{name:18}{figures}", flush=True)


if __name__ == "__main__":
    main()
