"""Two hosts in network namespaces with a wire between them that a test holds: it loses, delays, refuses and resets.

The near host is the namespace of a thread that runs the whole test; the far one has a listening socket. Packets go
through this process (two TUN devices), so a fault is exact and repeatable, and vanishes with the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

NEAR, FAR = "198.18.0.1", "198.18.0.2"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUN, _NO_PACKET_INFO = 0x400454CA, 0x1, 0x1000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8916, 0x891C, 0x8914, 0x41
_PACKET = 1 << 16

Verdict = Callable[[bytes], bytes | None]
"""What comes back to the sender in place of a packet that is lost; None: nothing does."""


def on_a_host(body: Callable[[], Coroutine[None, None, None]]) -> None:
    """The test's coroutine has run on a host of its own, which has loopback and no other network yet."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _enter_new_namespace()
            asyncio.run(body())
        except BaseException as error:  # noqa: BLE001  (the test's own failure, raised again below)
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def ports_from(first: int, last: int) -> None:
    """This host's outgoing connections take their ports from this range."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{first} {last}")


class Wire:
    """Connects this host with a far one, where `listener` listens. It is whole until it is told otherwise."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._near = _tun(NEAR)
        far: list[tuple[int, socket.socket]] = []

        def make() -> None:
            _enter_new_namespace()
            far.append((_tun(FAR), socket.create_server((FAR, 0))))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        ((self._far, self.listener),) = far
        self.lost = 0
        self.whole()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._near, self._pass, self._near, self._far)
        loop.add_reader(self._far, self._pass, self._far, self._near)

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for tun in (self._near, self._far):
            loop.remove_reader(tun)
            os.close(tun)

    def whole(self) -> None:
        """All that is sent arrives, at once."""
        self._loses = {self._near: 0.0, self._far: 0.0}
        self._delay_s = 0.0
        self._answer: Verdict = lambda _: None

    def drop(self, *, there: float = 0.0, back: float = 0.0) -> None:
        """Such a part of the packets from here, and of those that come back, is lost."""
        self._loses = {self._near: there, self._far: back}

    def delay(self, seconds: float) -> None:
        """Each packet is so long on its way."""
        self._delay_s = seconds

    def refuse(self) -> None:
        """Nothing goes there, and a router on the way says so (ICMP: host unreachable)."""
        self.drop(there=1.0)
        self._answer = unreachable

    def reset(self) -> None:
        """Nothing goes there, and a firewall answers for the far host that it knows no such connection (RST)."""
        self.drop(there=1.0)
        self._answer = reset

    def _pass(self, source: int, target: int) -> None:
        try:
            packet = os.read(source, _PACKET)
        except BlockingIOError:
            return
        if packet[0] >> 4 != 4:
            return  # what IPv6 says by itself on a new link
        if self._chance.random() < self._loses[source]:
            self.lost += 1
            if source == self._near and (said := self._answer(packet)):
                self._deliver(source, said)
            return
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._deliver, target, packet)
        else:
            self._deliver(target, packet)

    def _deliver(self, target: int, packet: bytes) -> None:
        try:
            os.write(target, packet)
        except OSError:
            self.lost += 1  # its queue is full, or the test is over


def reset(packet: bytes) -> bytes | None:
    """The RST that a host sends which knows no such connection (RFC 9293, 3.5.2)."""
    if packet[9] != socket.IPPROTO_TCP:
        return None
    head = (packet[0] & 15) * 4
    source, target, seq, ack, bits = struct.unpack_from("!HHIIH", packet, head)
    length = struct.unpack_from("!H", packet, 2)[0] - head - (bits >> 12) * 4
    if bits & 0x04:
        return None
    if bits & 0x10:
        seq, ack, flags = ack, 0, 0x04
    else:
        seq, ack, flags = 0, (seq + length + bool(bits & 0x02) + bool(bits & 0x01)) % 2**32, 0x14
    segment = struct.pack("!HHIIHHHH", target, source, seq, ack, 5 << 12 | flags, 0, 0, 0)
    pseudo = packet[16:20] + packet[12:16] + struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    return _ip(packet[16:20], packet[12:16], socket.IPPROTO_TCP, segment)


def unreachable(packet: bytes) -> bytes:
    """The ICMP message of a router that cannot reach the host (RFC 792)."""
    quoted = packet[: (packet[0] & 15) * 4 + 8]
    message = struct.pack("!BBHI", 3, 1, 0, 0) + quoted
    message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
    return _ip(packet[16:20], packet[12:16], socket.IPPROTO_ICMP, message)


def _ip(source: bytes, target: bytes, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + source + target
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _enter_new_namespace() -> None:
    """The calling thread is in a network namespace of its own, whose loopback is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def _tun(address: str) -> int:
    """The device `wire` of the calling thread's namespace: packets are read from and written to it."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _TUN | _NO_PACKET_INFO))
    with socket.socket() as any_socket:
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            where = struct.pack("16sHH4s8x", b"wire", socket.AF_INET, 0, socket.inet_aton(text))
            fcntl.ioctl(any_socket, request, where)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"wire", _UP_AND_RUNNING))
    return device
