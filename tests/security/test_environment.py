"""`milkrun up`: its parts and its commands find the token, and nobody else is shown it."""

from __future__ import annotations

import contextlib
import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from farm import Farm
from security.process import asked


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path / "farm")
    try:
        yield made
    finally:
        made.end()


def test_the_parts_share_a_token_that_nobody_else_is_shown(farm):
    up = farm.up()
    token = farm.folder.token_file.read_text().strip()
    assert stat.S_IMODE(farm.folder.token_file.stat().st_mode) == 0o600
    secret = token.encode()

    running = {**farm.processes(), "up": up.pid}
    assert any(name.startswith("goat") for name in running), f"instances are among {sorted(running)}"
    shown = [
        f"{name} {what}"
        for name, pid in running.items()
        for what in ("cmdline", "environ")
        if secret in Path(f"/proc/{pid}/{what}").read_bytes()
    ]
    assert shown == []
    with_it = [each for each in farm.path.rglob("*") if each.is_file() and secret in each.read_bytes()]
    assert with_it == [farm.folder.token_file]
    assert farm.git("status", "--porcelain", "--untracked-files=all") == "", "git takes no token along"
    for port in (farm.goats_stats, farm.farmers_stats):
        assert secret not in asked(port, "GET", "/monitor")[1]

    # Who is on this machine sees, and changes nothing; the commands find the token and do.
    assert asked(farm.registry, "GET", "/v1/kv/goat/?keys")[0] == 200
    for path in (
        "/v1/kv/goat/version=0.0.1/weight",
        "/v1/kv/milkrun/environment",
        "/v1/agent/maintenance?enable=true",
    ):
        assert asked(farm.registry, "PUT", path, b"0")[0] == 403
    done = farm.milkrun("weights", "goat", "0.0.1=30", "0.0.2=70")
    assert done.returncode == 0, done.stderr
    assert json.loads(farm.milkrun("status", "--json").stdout)
    assert token not in done.stdout + done.stderr + farm.milkrun("status").stdout

    up.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        up.wait(60)
    assert up.returncode == 0
    assert up.stdout
    assert token not in up.stdout.read()
