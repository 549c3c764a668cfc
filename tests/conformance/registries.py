"""Registries as operators run them: `milkrun registry` as a process, and a real Consul for comparison."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ports import free_port

NODE = "n1"
WITHIN_S = 30.0

_PATH = Path(__file__).parents[1] / "contract" / "consul" / "conftest.py"
_spec = importlib.util.spec_from_file_location("milkrun_contract_servers", _PATH)
assert _spec
assert _spec.loader
_contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_contract)

Server = _contract.Server
"""Asks a registry over HTTP."""
Answer = _contract.Answer
consul = _contract.consul
"""A real Consul serves meanwhile."""


@contextlib.contextmanager
def milkrun(folder: Path, *options: str, acl: str = "open") -> Iterator[Server]:
    """`milkrun registry` serves meanwhile, to everybody; afterwards it has ended as it should when it is told to."""
    server = Server("milkrun", free_port())
    command = [sys.executable, "-m", "milkrun", "registry", "--http", f"127.0.0.1:{server.port}"]
    log = folder / "registry.log"
    with (
        log.open("w") as sink,
        subprocess.Popen(
            [*command, "--data", str(folder / "data"), "--host", NODE, "--acl", acl, *options],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
        ) as process,
    ):
        server.process, server.log, server.told = process, log, False
        try:
            eventually(lambda: _serves(server), f"the registry serves: {log}")
            yield server
            if not server.told:
                stop(server)
        finally:
            process.kill()


def stop(server: Server) -> None:
    """The registry was there, has ended because it was told to, and made no mistake that its log shows."""
    assert server.process.poll() is None, f"the registry ended by itself:\n{_tail(server)}"
    server.told = True
    server.process.terminate()
    assert server.process.wait(WITHIN_S) in (0, 143), _tail(server)
    assert "Traceback" not in server.log.read_text(), _tail(server)


def _tail(server: Server) -> str:
    return str(server.log.read_text()[-4000:])


def _serves(server: Server) -> bool:
    assert server.process.poll() is None, _tail(server)
    with contextlib.suppress(OSError):
        return bool(server.get("/v1/status/leader").json)
    return False


def eventually(fact, what: str, within_s: float = WITHIN_S):
    """What `fact()` gives once it is true; it is looked at, because other processes make it so."""
    end = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.02)
    return found
