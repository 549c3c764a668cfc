"""Hosts of a test's own: network namespaces on one bridge, each with an agent, and each can lose its power."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from farm import COMMAND_WITHIN_S, Farm
from integration.docker.engine import Bridge

from milkrun.agent.units.marked import marked
from milkrun.agent.units.process import kill

_CLONE_NEWNET = 0x40000000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8916, 0x891C, 0x8914, 0x41
_NEWLINK, _DELLINK, _REQUEST_ACK, _CREATE_EXCL = 16, 17, 0x1 | 0x4, 0x400 | 0x200  # rtnetlink(7)
_IFNAME, _MASTER, _LINKINFO, _NET_NS_FD = 3, 10, 18, 28  # linux/if_link.h
_KIND, _DATA, _PEER = 1, 2, 1
_NO_DEVICE = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)


class Network:
    """A bridge in the test's namespace. Hosts that are plugged in reach `address`, and it reaches them."""

    def __init__(self) -> None:
        self.bridge = Bridge(f"mrh{os.getpid()}", second=150)
        self.address = self.bridge.address
        self.hosts: list[Host] = []

    def host(self, name: str, farm: Farm) -> Host:
        """A host with its agent running."""
        made = Host(self, len(self.hosts) + 2, name, farm)
        self.hosts.append(made)
        made.boots()
        return made

    def end(self) -> None:
        for host in self.hosts:
            host.dies()
        self.bridge.remove()


class Host:
    """One host of the farm: its own loopback, one address, one agent with a state folder of its own."""

    def __init__(self, network: Network, number: int, name: str, farm: Farm) -> None:
        self.name, self._farm = name, farm
        self.address = f"{network.address.rpartition('.')[0]}.{number}"
        self.state = farm.path / ".milkrun" / f"agent-{name}"
        self._bridge = network.bridge.name
        self._link = f"mrv{os.getpid()}.{number}"
        self._namespace = -1
        self._agent: subprocess.Popen[bytes] | None = None

    def boots(self) -> None:
        """It has its address, and its agent runs."""
        self._namespace = _new_namespace()
        _veth(self._link, self._bridge, self._namespace)
        _up(self._link)
        _within(self._namespace, self._configure)
        inside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespace}")
        milkrun = (sys.executable, "-m", "milkrun", "--env", str(self._farm.path))
        self.state.mkdir(exist_ok=True)
        with (self.state / "log").open("ab") as log:
            self._agent = subprocess.Popen(
                [*inside, *milkrun, "agent", "--host", self.name, "--state", str(self.state)],
                cwd=self._farm.path,
                env=self._farm.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _configure(self) -> None:
        _up("lo")
        _address("eth0", self.address)
        _up("eth0")

    def unplugged(self) -> None:
        """Nothing reaches it, and nothing comes from it."""
        _flags(self._link, 0)

    def plugged_in(self) -> None:
        """It is reached again."""
        _up(self._link)

    def runs(self) -> list[str]:
        """The instances that run here, whoever watches them."""
        return sorted(found.instance for found in marked(str(self.state)) if found.leader)

    def dies(self) -> None:
        """It loses its power: nobody is told, and no connection is closed."""
        if self._namespace < 0:
            return
        self.unplugged()
        if self._agent:
            self._agent.kill()
            self._agent.wait(COMMAND_WITHIN_S)
        for found in marked(str(self.state)):
            kill(found.identity)
        _remove(self._link)
        os.close(self._namespace)
        self._namespace = -1


class _Attribute(NamedTuple):
    kind: int
    data: bytes

    def packed(self) -> bytes:
        length = 4 + len(self.data)
        return struct.pack("=HH", length, self.kind) + self.data + b"\0" * (-length % 4)


def _packed(attributes: Sequence[_Attribute]) -> bytes:
    return b"".join(attribute.packed() for attribute in attributes)


def _veth(name: str, bridge: str, namespace: int) -> None:
    """A wire from the bridge to `eth0` in the namespace. Source: rtnetlink(7), veth(4), linux/veth.h."""
    peer = [_Attribute(_IFNAME, b"eth0\0"), _Attribute(_NET_NS_FD, struct.pack("=I", namespace))]
    data = _packed([_Attribute(_PEER, _NO_DEVICE + _packed(peer))])
    info = _packed([_Attribute(_KIND, b"veth"), _Attribute(_DATA, data)])
    body = _NO_DEVICE + _packed(
        [
            _Attribute(_IFNAME, name.encode() + b"\0"),
            _Attribute(_MASTER, struct.pack("=I", socket.if_nametoindex(bridge))),
            _Attribute(_LINKINFO, info),
        ]
    )
    _netlink(_NEWLINK, _CREATE_EXCL, body)


def _remove(device: str) -> None:
    """Both ends of the wire are gone: a namespace alone takes them along only some time after its last process."""
    _netlink(_DELLINK, 0, _NO_DEVICE + _Attribute(_IFNAME, device.encode() + b"\0").packed())


def _netlink(kind: int, flags: int, body: bytes) -> None:
    head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:  # NETLINK_ROUTE
        kernel.send(head + body)
        (error,) = struct.unpack_from("=i", kernel.recv(1 << 16), 16)
    if error:
        raise OSError(-error, os.strerror(-error))


def _new_namespace() -> int:
    """A file that keeps a new network namespace there is."""
    found: list[int] = []

    def make() -> None:
        _call("unshare", _CLONE_NEWNET)
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    _in_thread(make)
    return found[0]


def _within(namespace: int, body: Callable[[], None]) -> None:
    """The body has run in the namespace."""

    def run() -> None:
        _call("setns", namespace, _CLONE_NEWNET)
        body()

    _in_thread(run)


def _in_thread(body: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


def _ioctl(request: int, argument: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, request, argument)


def _address(device: str, address: str) -> None:
    for request, ip in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
        _ioctl(request, struct.pack("16sHH4s8x", device.encode(), socket.AF_INET, 0, socket.inet_aton(ip)))


def _flags(device: str, flags: int) -> None:
    _ioctl(_SIOCSIFFLAGS, struct.pack("16sh14x", device.encode(), flags))


def _up(device: str) -> None:
    _flags(device, _UP_AND_RUNNING)
