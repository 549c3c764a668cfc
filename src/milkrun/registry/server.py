"""The registry as a daemon: its disk, its clock and its port, until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from milkrun.errors import PortTaken
from milkrun.registry.access import own_token
from milkrun.registry.access.authority import Gate, Mode
from milkrun.registry.checks.damping import Damping
from milkrun.registry.checks.reach import Network, Reach
from milkrun.registry.checks.runner import Runner
from milkrun.registry.dns.server import answering
from milkrun.registry.engine import Engine
from milkrun.registry.http.app import App
from milkrun.registry.http.connections import BACKLOG, listening
from milkrun.registry.http.hosts import Hosts
from milkrun.registry.http.limits import Limits
from milkrun.registry.http.tls import TlsFiles, renewing
from milkrun.registry.nouns import Node
from milkrun.registry.parked import Parked
from milkrun.registry.storage import Storage

_DAMPING = Damping()
OPEN_FILES = 65_536
"""As many connections and more: each watcher holds one, and systems give a process 1,024 at first."""


async def serve(
    http: tuple[str, int],
    data_dir: Path,
    *,
    node: str,
    dns: tuple[str, int] | None = None,
    srv_weight_scale: int = 1,
    check_allow: tuple[Network, ...] = (),
    damping: Damping | None = _DAMPING,
    acl: Mode = Mode.OPEN,
    token_file: Path | None = None,
    tls: TlsFiles | None = None,
    allow_hosts: tuple[str, ...] = (),
    ready: Callable[[], None] | None = None,
) -> None:
    """Runs until it is cancelled or a client that may asks it to leave.

    Then parked queries are answered and the disk is closed, within two seconds. With `dns` it answers DNS there
    too. Its checks reach what `check_allow` names besides the services' own addresses and loopback; a `damping`
    of None shows every change of a check at once. Unless `acl` is open, the registry's own token is in
    `token_file` (or `token` in `data_dir`), made when there is none. With `tls` it speaks HTTPS only;
    `allow_hosts` are names that it answers to besides this machine's own. Raises PortTaken, Conflict when another
    registry uses `data_dir`, and StorageFailed when the disk fails.
    """
    _allow_open_files()
    async with contextlib.AsyncExitStack() as held:
        engine, address = await held.enter_async_context(
            running(
                http,
                data_dir,
                node=node,
                check_allow=check_allow,
                damping=damping,
                gate=_gate(acl, token_file or data_dir / own_token.NAME, http[0]),
                tls=tls,
                allow_hosts=allow_hosts,
            )
        )
        scheme = "https" if tls else "http"
        where = {"http": f"{scheme}://{_bracketed(address[0])}:{address[1]}"}
        if dns:
            await held.enter_async_context(answering(engine, dns, srv_weight_scale=srv_weight_scale))
            where["dns"] = f"{_bracketed(dns[0])}:{dns[1]}"
        structlog.get_logger("registry").info("the registry serves", **where, data=str(data_dir))
        if ready:
            ready()
        await _left(engine)


async def _left(engine: Engine) -> None:
    """A client asked the registry to leave. Raises what made it fail before that."""
    ends: list[asyncio.Future[Any]] = [engine.failed, engine.left]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if engine.failed.done():
        raise engine.failed.result()
    structlog.get_logger("registry").warning("the registry ends, as it was asked to over HTTP")


@asynccontextmanager
async def running(
    http: tuple[str, int],
    data_dir: Path,
    *,
    node: str,
    check_allow: tuple[Network, ...] = (),
    damping: Damping | None = _DAMPING,
    gate: Gate | None = None,
    tls: TlsFiles | None = None,
    allow_hosts: tuple[str, ...] = (),
) -> AsyncIterator[tuple[Engine, tuple[str, int]]]:
    """The registry serves meanwhile; gives the engine and the address that it listens on.

    Without a `gate` everyone may do everything.
    """
    hosts = Hosts.named((socket.gethostname(), node), allow_hosts)
    limits = Limits.by_files(_files())
    stamp, context = (tls.stamp(), tls.context()) if tls else ((), None)
    with contextlib.ExitStack() as held:
        storage = held.enter_context(Storage(data_dir))
        listener = held.enter_context(_listener(http))
        host, port = listener.getsockname()[:2]
        parked = Parked(in_all=limits.watchers, per_address=limits.watchers_per_address)
        engine = Engine(storage, _own_node(storage, node, host), parked, gate)
        app = App(engine)
        with _one_failure_as_itself():
            async with (
                asyncio.TaskGroup() as tasks,
                listening(app, listener, limits=limits, hosts=hosts, cap=app.cap, tls=context) as connections,
            ):
                timers = tasks.create_task(engine.run_timers())
                renewal = tasks.create_task(renewing(tls, stamp, connections.meet)) if tls else timers
                reach = Reach(allowed=check_allow, door=(engine.own.address, port))
                checks = tasks.create_task(Runner(engine, reach=reach, damping=damping).run())
                try:
                    await engine.announce()
                    yield engine, (host, port)
                finally:
                    engine.parked.close()
                    for task in (timers, renewal, checks):
                        task.cancel()


def _gate(mode: Mode, token_file: Path, host: str) -> Gate:
    log = structlog.get_logger("registry")
    if mode is Mode.OPEN:
        log.warning(
            "access is open: whoever reaches this registry may change everything, and so run commands on hosts",
            listens=host,
            next="leave --acl open away",
        )
        return Gate()
    digest = own_token.digest_at(token_file)
    log.info("access is controlled", acl=str(mode), token=str(token_file))
    return Gate(mode, digest)


def _files() -> int:
    """How many files this process may open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def _allow_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _one_failure_as_itself() -> Iterator[None]:
    """What went wrong inside is raised as it was, not as a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


@contextlib.contextmanager
def _listener(http: tuple[str, int]) -> Iterator[socket.socket]:
    host, port = http
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol says TCP: without it each answer waits 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise PortTaken(
                f"the registry cannot listen on {_bracketed(host)}:{port}: {error.strerror}",
                remedy=f"see who does: `ss -ltnp 'sport = :{port}'`, or choose another with --http HOST:PORT",
            ) from error
        listener.setblocking(False)
        yield listener


def _own_node(storage: Storage, name: str, host: str) -> Node:
    address = _reachable(host)
    return Node(
        id=storage.meta("node-id", str(uuid.uuid4())),
        node=name,
        address=address,
        tagged_addresses={"lan": address, "wan": address},
    )


def _reachable(host: str) -> str:
    """An address of this machine that others reach, when the registry listens on all of them."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return host
    family, probe = (socket.AF_INET6, "2001:db8::1") if host == "::" else (socket.AF_INET, "192.0.2.1")
    with socket.socket(family, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect((probe, 9))  # picks the route; a datagram socket sends nothing here
        except OSError:
            return "::1" if host == "::" else "127.0.0.1"
        return str(unsent.getsockname()[0])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
