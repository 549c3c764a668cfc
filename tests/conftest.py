"""What all tests share: `needs(part)` for real parts that a machine may lack, and clean variables."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import haproxies
import hypothesis
import pytest
import structlog

ROOT = Path(__file__).parent.parent

# No test judges how fast a machine is that others use as well.
hypothesis.settings.register_profile("milkrun", deadline=None)
hypothesis.settings.load_profile("milkrun")

# A shell's job in the background ignores these two, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command that runs in a test's own process keeps the parts quiet: for that test, and not for the next."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def _consul() -> bool:
    named = os.environ.get("MILKRUN_CONSUL", "")
    return bool(
        (named and Path(named).is_file()) or shutil.which("consul") or (ROOT / ".parts" / "consul").is_file()
    )


def _docker() -> bool:
    """Whether this process may start an engine of its own."""
    home = ROOT / ".parts" / "docker"
    return (home / "usr/sbin/dockerd").is_file() and (home / "bin/busybox").is_file() and _tmpfs()


def _tmpfs() -> bool:
    """Whether this process may mount: it has CAP_SYS_ADMIN."""
    status = Path("/proc/self/status")
    held = status.read_text().partition("CapEff:")[2].split()[:1] if status.is_file() else []
    return bool(held) and bool(int(held[0], 16) >> 21 & 1) and shutil.which("nsenter") is not None


def _netns() -> bool:
    """Whether this process may make network namespaces, and devices in them (it may mount as well, then)."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK) and _tmpfs()


def _envoy() -> bool:
    wheel = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    named = os.environ.get("MILKRUN_ENVOY", "")
    there = bool(named and Path(named).is_file()) or wheel.is_file() or shutil.which("envoy") is not None
    return there and importlib.util.find_spec("grpc") is not None


def _postgres() -> bool:
    """Whether the server's own programs are here; Debian keeps them off PATH."""
    return bool(shutil.which("postgres") or list(Path("/usr/lib/postgresql").glob("*/bin/postgres")))


PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "haproxies": (haproxies.all_here, ".ci/parts/haproxy.sh"),
    "consul": (_consul, ".ci/parts/consul.sh"),
    "envoy": (_envoy, "pip install 'milkrun[envoy]'"),
    "strace": (lambda: shutil.which("strace") is not None, ".ci/parts/strace.sh"),
    "py-consul": ((ROOT / ".parts" / "py-consul" / "version").is_file, ".ci/parts/py_consul.sh"),
    "tmpfs": (_tmpfs, "root, which may mount,"),
    "netns": (_netns, "root, with /dev/net/tun,"),
    "docker": (_docker, ".ci/parts/docker.sh"),
    "postgres": (_postgres, ".ci/parts/postgres.sh"),
    "chromium": (lambda: shutil.which("chromium") is not None, ".ci/parts/chromium.sh"),
}
"""Each part: whether this machine has it, and the script that gets it."""

# Asked once, before any test can change a variable.
_HERE = {name: found() for name, (found, _) in PARTS.items()}
_CI = os.environ.get("CI", "") in ("1", "true")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs a missing part is left out by name; in CI, where nothing may be missing, it fails."""
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            if part not in PARTS:
                pytest.fail(f"needs({part!r}): tests/conftest.py knows no such part", pytrace=False)
            if _HERE[part]:
                continue
            reason = f"needs {part}, which this machine lacks; {PARTS[part][1]} gets it"
            if _CI:
                pytest.fail(f"{reason} (CI leaves nothing out)", pytrace=False)
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last thing that `make test` says is what it did not test here, and how to get that."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for part, (_, remedy) in sorted(PARTS.items()):
        count = sum(f"needs {part}, which this machine lacks" in reason for reason in reasons)
        if count:
            terminalreporter.write_line(
                f"left out: {count} tests that need {part}; get it with {remedy}", yellow=True
            )


@pytest.fixture(autouse=True)
def _hermetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caller's registry, token or haproxy, unless it sets them itself."""
    for name in list(os.environ):
        if name.startswith(("CONSUL_", "MILKRUN_")) and name not in ("MILKRUN_CONSUL", "MILKRUN_HAPROXY"):
            monkeypatch.delenv(name)
