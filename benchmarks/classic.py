"""The classic way, as benchmarks/router.py's peer: watch the registry, render the whole file, check it, reload.

    python benchmarks/classic.py FOLDER REGISTRY_PORT LISTEN_PORT

No pause is made to gather changes, as the usual tools make one: this is the loop at its quickest.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from milkrun.consul import Address, Registry, catalog, keys, wire
from milkrun.consul.client import decode
from milkrun.consul.watch import watch_health, watch_prefix
from milkrun.model import Instance, ServiceName
from milkrun.router.haproxy import binary

GOAT = ServiceName("goat")


def render(instances: list[Instance], weights: dict[str, int], port: int) -> str:
    """The whole file: a version's weight is each of its servers'."""
    lines = [
        "global\n  stats socket unix@admin.sock mode 600 level admin\n  stats maxconn 32",
        "defaults\n  mode http\n  timeout client 1m\n  timeout connect 1s\n  timeout server 1m",
        f"frontend front\n  bind 127.0.0.1:{port}\n  default_backend goat\nbackend goat\n  balance roundrobin",
    ]
    for each in instances:
        weight = weights.get(each.version, 1)
        lines.append(f"  server {each.id} {each.address}:{each.port} check inter 10s weight {weight}")
    return "\n".join(lines) + "\n"


def reload(folder: Path) -> None:
    """A new worker serves from the file."""
    done = False
    while not done:
        try:
            with socket.socket(socket.AF_UNIX) as master:
                master.connect(str(folder / "master.sock"))
                master.sendall(b"reload\n")
                done = b"Success=1" in master.recv(1 << 16)
        except OSError:
            time.sleep(0.01)


async def main(folder: Path, registry_port: int, port: int) -> None:
    haproxy = binary.find().path
    master = subprocess.Popen(
        [haproxy, "-W", "-S", "unix@master.sock,mode,600", "-f", "haproxy.cfg"],
        cwd=folder,
        start_new_session=True,
    )
    changed = asyncio.Event()
    instances: list[Instance] = []
    weights: dict[str, int] = {}

    async def watch_instances(registry: Registry) -> None:
        nonlocal instances
        async for answer in watch_health(registry, GOAT):
            instances = catalog.instances(decode(answer.body, list[wire.HealthEntry]))
            changed.set()

    async def watch_weights(registry: Registry) -> None:
        nonlocal weights
        async for answer in watch_prefix(registry, keys.wish_prefix(GOAT)):
            pairs = decode(answer.body, list[wire.Pair]) if answer.status == 200 else []
            wish = catalog.wish(GOAT, pairs)
            weights = {name: int(weight) for name, weight in wish.weights.items()}
            changed.set()

    try:
        async with (
            Registry(Address(url=f"http://127.0.0.1:{registry_port}")) as registry,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(watch_instances(registry))
            tasks.create_task(watch_weights(registry))
            while True:
                await changed.wait()
                changed.clear()
                (folder / "haproxy.cfg").write_text(render(instances, weights, port))
                subprocess.run([haproxy, "-c", "-q", "-f", "haproxy.cfg"], cwd=folder, check=True)
                reload(folder)
    finally:
        master.send_signal(signal.SIGTERM)
        master.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
