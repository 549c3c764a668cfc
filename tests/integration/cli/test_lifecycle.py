"""How an environment starts, survives, and ends: nothing is left behind, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from certificates import Authority


def haproxies(farm) -> set[int]:
    return {pid for what, pid in farm.processes().items() if what.startswith("haproxy")}


def goats(farm) -> set[int]:
    return {pid for what, pid in farm.processes().items() if what.startswith(("goat-", "farmer-"))}


def test_ctrl_c_stops_everything_in_order_and_leaves_nothing(farm):
    up = farm.up()
    assert len(goats(farm)) == 5
    up.send_signal(signal.SIGINT)
    text, _ = up.communicate(timeout=60)
    assert up.returncode == 0, text
    ended = re.findall(r"(\S+) has ended", text)
    assert ended == ["rollouts", "lb-farmer", "lb-goat", "agent", "gitsync", "registry"]
    assert "left over" not in text
    assert farm.processes() == {}
    assert not farm.folder.up_file.exists()


def test_it_comes_up_for_the_first_time_with_a_registry_that_shows_nothing_without_a_token(farm):
    """The token is made by that very start."""
    settings = farm.path / "milkrun.toml"
    settings.write_text(settings.read_text().replace("[registry]", '[registry]\nacl = "closed"'))
    farm.commit("Nobody reads without a token")
    assert not farm.folder.token_file.exists()
    farm.up()
    assert farm.milkrun("status").returncode == 0


@pytest.fixture
def secured(farm, tmp_path):
    """The farm with a registry that speaks TLS; `asked` is the status that it answers to a name."""
    authority = Authority(tmp_path)
    pair = authority.pair("127.0.0.1")
    (farm.path / "tls").mkdir()
    for file, to in ((pair.cert, "a.pem"), (pair.key, "a.key")):
        (farm.path / "tls" / to).write_bytes(Path(file).read_bytes())
    keys = 'tls_cert = "tls/a.pem"\ntls_key = "tls/a.key"\nallow_host = ["farm.example"]'
    settings = farm.path / "milkrun.toml"
    settings.write_text(settings.read_text().replace("[registry]", f"[registry]\n{keys}"))
    farm.commit("Nobody reads along")
    farm.environment["CONSUL_CACERT"] = authority.file
    trusted = ssl.create_default_context(cafile=authority.file)

    def asked(host: str) -> int:
        url = f"https://127.0.0.1:{farm.registry}/v1/status/leader"
        try:
            request = urllib.request.Request(url, headers={"Host": host})
            return urllib.request.urlopen(request, context=trusted).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    farm.asked = asked
    return farm


def test_its_registry_speaks_tls_and_answers_to_a_name_as_the_settings_say(secured):
    up = secured.start("up")
    secured.ups.append(up)
    secured.until(up, rf"https://127.0.0.1:{secured.registry}/v1")

    assert secured.milkrun("status").returncode == 0
    assert (secured.asked("farm.example"), secured.asked("stranger.example")) == (200, 421)


def test_a_registry_of_its_own_in_the_folder_takes_the_same_settings(secured):
    registry = secured.start("registry")
    secured.ups.append(registry)

    secured.eventually(lambda: secured.asked("farm.example") == 200)

    assert secured.asked("stranger.example") == 421
    registry.terminate()
    assert registry.wait(timeout=30) == 0


def test_ctrl_c_in_the_middle_of_starting_leaves_nothing_either(farm):
    up = farm.start("up")
    farm.ups.append(up)
    farm.until(up, "waits for")
    up.send_signal(signal.SIGINT)
    text, _ = up.communicate(timeout=60)
    assert up.returncode == 0, text
    assert "everything has stopped" in text
    assert farm.processes() == {}


def test_a_second_ctrl_c_kills_at_once(farm):
    up = farm.up()
    up.send_signal(signal.SIGINT)
    farm.until(up, "once more kills")
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=20)
    assert farm.processes() == {}


def test_a_taken_port_is_named_with_its_holder_and_the_setting(farm):
    with socket.socket() as other:
        other.bind(("127.0.0.1", farm.goats_stats))
        other.listen()
        done = farm.milkrun("up")
    assert done.returncode == 4
    assert f"127.0.0.1:{farm.goats_stats} is taken by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert "stats in [routers.lb-goat]" in done.stderr
    assert farm.processes() == {}


def test_down_stops_all_though_milkrun_toml_is_wrong_and_up_is_dead(farm):
    up = farm.up()
    up.kill()
    up.wait()
    (farm.path / "milkrun.toml").write_text("name = ")
    done = farm.milkrun("up")
    assert done.returncode == 8
    assert "milkrun.toml:1: not TOML" in done.stderr
    done = farm.milkrun("down")
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"(\S+) has ended", done.stderr)
    assert ended == ["rollouts", "lb-farmer", "lb-goat", "agent", "gitsync", "registry"]
    assert "left over" not in done.stderr
    assert farm.processes() == {}


def test_up_goes_on_without_its_record_and_down_finds_it_all_the_same(farm):
    (farm.folder.up_file.with_suffix(".tmp")).mkdir(parents=True)  # what is written there has no place
    up = farm.start("up")
    farm.ups.append(up)
    said = farm.until(up, r"is up\. Try:")
    assert said.count("up.json cannot be written") == 1
    os.kill(farm.processes()["gitsync"], signal.SIGKILL)
    farm.until(up, "gitsync: killed by signal 9; starts again")
    farm.eventually(lambda: "gitsync" in farm.processes())
    done = farm.milkrun("down")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\S+) has ended", done.stderr)[-1] == "registry"
    assert up.wait(20) == 0
    assert farm.processes() == {}


@pytest.mark.parametrize("after", ["binary.find", "ports.check", "leftovers.parts"])
def test_ctrl_c_before_the_first_part_leaves_nothing(farm, after):
    """The signal comes while `up` looks around: what it starts next must not be left alone."""
    script = f"""
import os, signal, sys
from milkrun.up import leftovers, ports, run
from milkrun.router.haproxy import binary
module, name = {after!r}.split(".")
look = getattr({after.partition(".")[0]}, name)
def interrupted(*args):
    os.kill(os.getpid(), signal.SIGINT)
    return look(*args)
setattr({after.partition(".")[0]}, name, interrupted)
sys.argv = ["milkrun", "up"]
from milkrun.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=farm.path, env=farm.environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert "everything has stopped" in done.stderr
    assert farm.processes() == {}


def test_detach_returns_when_all_is_up_and_down_stops_it(farm):
    done = farm.milkrun("up", "--detach")
    assert done.returncode == 0, done.stderr
    assert f"curl localhost:{farm.farmers}/milk" in done.stdout
    assert farm.milkrun("status").returncode == 0
    done = farm.milkrun("down")
    assert done.returncode == 0, done.stderr
    assert farm.processes() == {}
    done = farm.milkrun("down")
    assert done.returncode == 0
    assert "nothing of" in done.stderr


def test_a_killed_up_is_followed_by_one_that_adopts_all_that_serves_and_no_request_fails(farm):
    first = farm.up()
    served_by, milked = haproxies(farm), goats(farm)
    load = farm.start("load", farm.url, "--rate", "100", "--duration", "12s", "--json")
    first.kill()
    first.wait()
    assert len(farm.processes()) == 6 + len(served_by) + len(milked)
    second = farm.up()
    assert haproxies(farm) == served_by
    assert goats(farm) == milked
    done = farm.milkrun("weights", "goat", "0.0.1=1", "0.0.2=1")
    assert done.returncode == 0, done.stderr
    text, _ = load.communicate(timeout=60)
    figures = json.loads(text[text.index("{") :])
    assert figures["failures"] == {}
    assert figures["answered"] == figures["sent"] == 1200
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=60)
    assert farm.processes() == {}


def test_down_stops_what_a_killed_up_left(farm):
    up = farm.up()
    up.kill()
    up.wait()
    os.kill(farm.processes()["rollouts"], signal.SIGKILL)
    farm.eventually(lambda: "rollouts" not in farm.processes())
    left = "agent, gitsync, lb-farmer, lb-goat, registry"
    assert f"does not run, but {left} do, without rollouts" in farm.milkrun("doctor").stdout
    done = farm.milkrun("down")
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"(\S+) has ended", done.stderr)
    assert ended == ["lb-farmer", "lb-goat", "agent", "gitsync", "registry"]
    assert farm.processes() == {}


def test_down_kills_instances_whose_agent_and_up_were_killed(farm):
    up = farm.up()
    up.kill()
    up.wait()
    for name in ("rollouts", "agent", "lb-goat", "lb-farmer", "gitsync", "registry"):
        os.kill(farm.processes()[name], signal.SIGKILL)
    farm.eventually(lambda: not [name for name in farm.processes() if " " not in name])
    assert farm.processes() != {}
    link = farm.path.parent / "link"  # not as the agent spells its folder
    link.symlink_to(farm.path)
    done = farm.milkrun("--env", str(link), "down")
    assert done.returncode == 0
    assert "was left over: killed" in done.stderr
    assert farm.processes() == {}


def test_a_part_that_dies_is_started_again_and_it_is_said(farm):
    up = farm.up()
    pid = farm.processes()["gitsync"]
    os.kill(pid, signal.SIGKILL)
    assert "gitsync: killed by signal 9; starts again in" in farm.until(up, "starts again")
    farm.eventually(lambda: farm.processes().get("gitsync") not in (None, pid))
    done = farm.milkrun("weights", "goat", "0.0.1=1", "0.0.2=1")
    assert done.returncode == 0, done.stderr


def test_without_a_registry_weights_are_committed_and_said_to_wait(farm):
    done = farm.milkrun("weights", "goat", "0.0.1=1", "0.0.2=1")
    assert done.returncode == 6
    assert f"commit {farm.git('rev-parse', 'HEAD')[:7]} is made and will be served" in done.stderr
    done = farm.milkrun("status", "--json")
    assert done.returncode == 6
    assert "`milkrun up` does not run in" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "registry-unreachable"


def test_an_instance_that_cannot_start_is_named_with_its_log_and_the_rest_comes_up(farm):
    file = farm.path / "deploy" / "goat.json"
    deploy = json.loads(file.read_text())
    (farm.path / "services" / "goat.toml").write_text('command = ["false"]\n')
    file.write_text(json.dumps(deploy))
    farm.commit("A goat that is none")
    up = farm.start("up")
    farm.ups.append(up)
    text = farm.until(up, r"is up\. Try:")
    assert re.search(r"goat-0\.0\.1-\S+ does not start: .*; its log: \S+\.log", text)
    done = farm.milkrun("status")
    assert done.returncode == 7
    assert "is in state backoff" in done.stdout


def test_what_up_needs_is_asked_for_before_anything_starts(farm):
    farm.environment["MILKRUN_HAPROXY"] = "/nonexistent/haproxy"
    done = farm.milkrun("up")
    assert done.returncode == 1
    assert "MILKRUN_HAPROXY names /nonexistent/haproxy" in done.stderr
    assert farm.processes() == {}
    del farm.environment["MILKRUN_HAPROXY"]
    (farm.path / ".git").rename(farm.path / "no-git")
    done = farm.milkrun("up")
    assert done.returncode == 3
    assert "is not a git repository" in done.stderr


def test_doctor_finds_a_secret_that_git_tracks(farm):
    settings = farm.path / "services" / "goat.toml"
    settings.write_text(f'secrets = {{ HERD = "README.md" }}\n{settings.read_text()}')
    done = farm.milkrun("doctor")
    assert done.returncode == 7
    assert "the secret HERD is README.md, which git tracks" in done.stdout
    assert "next: git rm --cached README.md" in done.stdout


def test_a_router_that_git_dropped_is_stopped_by_the_next_up(farm):
    first = farm.up()
    before = haproxies(farm)
    first.kill()
    first.wait()
    settings = (farm.path / "milkrun.toml").read_text()
    (farm.path / "milkrun.toml").write_text(
        settings[: settings.index("# A load balancer before the farmers")]
    )
    farm.commit("No front door")
    farm.up()
    assert sorted(name for name in farm.processes() if " " not in name) == [
        "agent",
        "gitsync",
        "lb-goat",
        "registry",
        "rollouts",
    ]
    assert haproxies(farm) < before
    assert len(haproxies(farm)) == len(before) / 2
