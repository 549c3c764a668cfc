"""A Docker engine of the tests' own, in a folder of its own; and an image for it, of nothing but a static busybox."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

PARTS = Path(__file__).parents[3] / ".parts" / "docker"
WITHIN_S = 60.0
_PR_SET_PDEATHSIG = 1  # prctl(2)
MILK = """#!/bin/sh
[ -d /ledger ] && echo "$HTTP_X_REQUEST_ID" >> "/ledger/$MILKRUN_INSTANCE.log"
printf 'Content-Type: application/json\\r\\n\\r\\n'
printf '{"goat": {"service": "%s", "version": "%s", "instance": "%s"}, ' \\
    "$MILKRUN_SERVICE" "$MILKRUN_VERSION" "$MILKRUN_INSTANCE"
printf '"request": "%s"}' "$HTTP_X_REQUEST_ID"
"""
"""At /cgi-bin/milk: as the farm's own goats answer, and with a folder /ledger it writes down whom it answered."""
APPLETS = ("sh", "httpd", "cat", "echo", "mkdir", "sleep", "tail", "seq")
GOAT = """#!/bin/sh
trap 'echo "goat ends"; exit 0' TERM
trap 'echo "goat quits"; exit 0' QUIT
[ "$MOOD" = stubborn ] && trap '' TERM
echo "milked by $MILKRUN_INSTANCE"
[ "$MOOD" = greedy ] && exec tail /dev/zero
[ "$MOOD" = crash ] && exit 3
[ "$MOOD" = deaf ] && while :; do sleep 1; done
[ -n "$DATABASE_FILE" ] && cat "$DATABASE_FILE" > /www/secret
echo ok > /www/health
httpd -f -p "$MILKRUN_ADDRESS:$MILKRUN_PORT" -h "${WWW:-/www}" &
child=$!
while :; do wait $child; [ "$MOOD" = stubborn ] || exit 1; done
"""


def _ends_with_this_thread() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Bridge:
    """A network of the engine's own: two engines cannot share Docker's, and tests run on both cores.

    Source: netdevice(7); the two for bridges are in linux/sockios.h.
    """

    def __init__(self, name: str, *, second: int = 200) -> None:
        self.name = name
        self._call(0x89A0, name.encode() + b"\0")  # SIOCBRADDBR
        number = os.getpid()
        address = bytes([10, second + number // 250 % 50, number % 250, 1])
        self.address = socket.inet_ntoa(address)
        for request, ip in (
            (0x8916, address),
            (0x891C, bytes([255, 255, 255, 0])),
        ):  # SIOCSIFADDR, SIOCSIFNETMASK
            self._call(request, struct.pack("16sHH4s8x", name.encode(), socket.AF_INET, 0, ip))
        self._flags(up=True)

    def remove(self) -> None:
        self._flags(up=False)
        self._call(0x89A1, self.name.encode() + b"\0")  # SIOCBRDELBR

    def _flags(self, *, up: bool) -> None:
        self._call(0x8914, struct.pack("16sh14x", self.name.encode(), int(up)))  # SIOCSIFFLAGS, IFF_UP

    @staticmethod
    def _call(request: int, argument: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, request, argument)


class Docker:
    """The engine, which can be killed and started again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mrd-"))  # short: a socket's path has 107 bytes at most
        self.socket = self.folder / "s"
        self.host = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self._bridge = Bridge(f"mrd{os.getpid()}")
        self._environment = os.environ | {
            "PATH": f"{PARTS / 'usr/bin'}:{PARTS / 'usr/sbin'}:{os.environ['PATH']}",
            "DOCKER_HOST": self.host,
            "HOME": str(self.folder),
        }

    def start(self) -> None:
        """To be called in the main thread: a run of tests that is killed takes the engine along."""
        (self.folder / "config").write_text("{}")  # this machine's own is not for it
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PARTS / "usr/sbin/dockerd",
                    "--storage-driver=vfs",
                    f"--data-root={self.folder / 'data'}",
                    f"--exec-root={self.folder / 'exec'}",
                    f"--pidfile={self.folder / 'pid'}",
                    f"--host={self.host}",
                    f"--config-file={self.folder / 'config'}",
                    f"--bridge={self._bridge.name}",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                    "--shutdown-timeout=2",
                ],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_ends_with_this_thread,  # noqa: PLW1509 (it calls nothing that locks)
            )
        end = time.monotonic() + WITHIN_S
        while self.docker("version", check=False).returncode:
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "the engine did not come up"
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """As a host's reboot or an upgrade does it: containers are stopped with it."""
        self._process.terminate()
        self._process.wait(WITHIN_S)

    def kill(self) -> None:
        """Its containers go on."""
        self._process.kill()
        self._process.wait(WITHIN_S)
        # It takes its containerd along. Where nobody reaps orphans, the next one would take that for a living one.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def docker(
        self, *arguments: str | Path, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Docker's own command."""
        return subprocess.run(
            [PARTS / "usr/bin/docker", *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            timeout=WITHIN_S,
            check=check,
        )

    def inspect(self, name: str) -> dict:
        return json.loads(self.docker("inspect", name).stdout)[0]

    def names(self, *filters: str) -> set[str]:
        chosen = [word for each in filters for word in ("--filter", each)]
        return set(self.docker("ps", "--all", "--format", "{{.Names}}", *chosen).stdout.decode().split())

    def make(self, image: str) -> None:
        """The image is there: a goat, which does what MOOD says."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as files:
            for folder in ("bin", "www", "www/cgi-bin", "tmp"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                files.addfile(entry)
            files.add(PARTS / "bin/busybox", "bin/busybox")
            for applet in APPLETS:
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                files.addfile(entry)
            for name, script in (("goat", GOAT), ("www/cgi-bin/milk", MILK)):
                entry = tarfile.TarInfo(name)
                entry.mode, entry.size = 0o755, len(script)
                files.addfile(entry, io.BytesIO(script.encode()))
        self.docker("import", "--change", 'CMD ["/goat"]', "-", image, stdin=tar.getvalue())

    def clear(self) -> None:
        """No container is left."""
        if names := self.names():
            self.docker("rm", "--force", "--volumes", *names)

    def end(self) -> None:
        """Nothing of it is left."""
        if self.running:
            with contextlib.suppress(subprocess.SubprocessError):
                self.clear()
            self.stop()
        for mount in Path("/proc/self/mounts").read_text().splitlines():
            if (where := mount.split()[1]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", where], check=False)
        self._bridge.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
