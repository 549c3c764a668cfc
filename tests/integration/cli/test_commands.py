"""The commands against a farm that is up."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request

import msgspec

from milkrun.overview.view import View


def test_a_request_names_the_farmer_and_the_goat(running):
    with urllib.request.urlopen(running.url) as answer:
        milk = json.load(answer)
    assert milk["farmer"]["service"] == "farmer"
    assert milk["goat"]["service"] == "goat"
    assert milk["goat"]["instance"].startswith(f"goat-{milk['goat']['version']}-")


def test_status_is_well_and_its_json_is_the_view(running):
    done = running.milkrun("status", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    view = msgspec.json.decode(done.stdout, type=View)
    assert [one.service for one in view.services] == ["farmer", "goat"]
    assert view.problems == []
    text = running.milkrun("status", "goat")
    assert text.returncode == 0
    assert "farmer at" not in text.stdout


def test_weights_are_committed_and_served_when_the_command_returns(running):
    done = running.milkrun("weights", "goat", "0.0.1=70", "0.0.2=30", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["commit"] == running.git("rev-parse", "HEAD")
    assert [one["commit"] for one in result["routers"]] == [result["commit"]]
    assert running.git("log", "-1", "--format=%s") == "goat: 0.0.1=70 0.0.2=30"
    assert running.git("status", "--porcelain") == ""
    shown = running.milkrun("weights", "goat").stdout
    assert re.search(r"0\.0\.1 +70 +70\.00 % +70\.00 %", shown)


def test_weights_that_are_there_already_make_no_commit(running):
    running.milkrun("weights", "goat", "0.0.1=60", "0.0.2=40")
    head = running.git("rev-parse", "HEAD")
    done = running.milkrun("weights", "goat", "0.0.2=40", "0.0.1=60")
    assert done.returncode == 0
    assert "has these weights already" in done.stderr
    assert running.git("rev-parse", "HEAD") == head


def test_an_unknown_service_or_version_is_3_and_names_the_known_ones(running):
    done = running.milkrun("weights", "cow", "1=1")
    assert done.returncode == 3
    assert "there are: farmer, goat" in done.stderr
    done = running.milkrun("weights", "goat", "9.9.9=1", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "not-found"
    for command in (("status", "gaot"), ("weights", "gaot", "0.0.1=1"), ("weights", "GOAT", "0.0.1=1")):
        done = running.milkrun(*command)
        assert done.returncode == 3, command
    assert "next: did you mean goat?" in running.milkrun("status", "gaot").stderr
    elsewhere = running.milkrun("status", "--registry", "http://127.0.0.1:1")
    assert elsewhere.returncode == 6
    assert "milkrun up` runs here" not in elsewhere.stderr
    for command in (("status", "cow"), ("explain", "cow"), ("logs", "cow"), ("router", "lb-cow")):
        done = running.milkrun(*command)
        assert done.returncode == 3, command
        assert "Traceback" not in done.stderr


def test_a_bad_file_is_told_by_status_and_its_service_keeps_what_it_had(running):
    file = running.path / "deploy" / "farmer.json"
    good = file.read_text()
    file.write_text(good.replace("50", "-1", 1))
    running.commit("A mistake")
    try:
        done = running.milkrun("weights", "goat", "0.0.1=55", "0.0.2=45")
        assert done.returncode == 0, done.stderr
        done = running.milkrun("status")
        assert done.returncode == 7
        assert re.search(r"deploy/farmer\.json:\d+: ", done.stdout)
        assert done.stdout.splitlines()[-1].startswith("next: mend deploy/farmer.json")
        done = running.milkrun("weights", "farmer", "0.0.1=1")
        assert done.returncode == 8
    finally:
        file.write_text(good)
        running.commit("Mended")
    assert running.milkrun("weights", "farmer", "0.0.1=50", "0.0.2=50").returncode == 0
    assert running.milkrun("status").returncode == 0


def test_a_wrong_milkrun_toml_keeps_nobody_from_looking_shifting_traffic_or_restarting_a_part(running):
    file = running.path / "milkrun.toml"
    good = file.read_text()
    file.write_text(good.replace("service =", "servce =", 1))
    try:
        done = running.milkrun("status")
        assert done.returncode == 0, done.stderr
        assert re.match(
            r"milkrun: milkrun\.toml:\d+: .*did you mean `service`\?\); goes on with", done.stderr
        )
        assert running.milkrun("weights", "goat", "0.0.1=7", "0.0.2=3").returncode == 0
        done = running.milkrun("doctor")
        assert done.returncode == 7
        assert re.search(r"fail  milkrun.toml +milkrun\.toml:\d+: ", done.stdout)
        before = running.processes()["lb-goat"]
        os.kill(before, signal.SIGKILL)
        running.eventually(lambda: running.processes().get("lb-goat", before) != before)
        assert running.milkrun("weights", "goat", "0.0.1=3", "0.0.2=7").returncode == 0
    finally:
        file.write_text(good)


def test_a_service_whose_files_leave_git_ends(running):
    before = running.processes()
    (running.path / "services" / "cow.toml").write_text(
        'command = ["{python}", "apps/goat.py"]\n[health]\ninterval_s = 0.1\n'
    )
    deploy = running.path / "deploy" / "cow.json"
    deploy.write_text('{"version=1+b": {"replicas": 1}}')
    running.git("add", "--all")
    running.commit("A cow")
    running.eventually(lambda: "1 of 1 healthy" in running.milkrun("status", "cow").stdout)
    running.git("rm", "--quiet", "deploy/cow.json", "services/cow.toml")
    running.commit("No cow")
    running.eventually(lambda: running.processes() == before)
    running.eventually(lambda: running.milkrun("status", "cow").returncode == 3)
    assert running.milkrun("status").returncode == 0


def test_explain_ends_with_the_reason(running):
    done = running.milkrun("explain", "goat")
    assert done.returncode == 0
    assert done.stdout.count("=> It gets traffic from lb-goat") == 3


def test_logs_follow_a_part_and_label_the_instances_of_a_service(running):
    running.milkrun("weights", "goat", "0.0.1=3", "0.0.2=1")
    follower = running.start("logs", "lb-goat", "-f", "-n", "1")
    try:
        running.until(follower, r"goat: 0.0.1 takes 75.00 %")  # it follows now
        running.milkrun("weights", "goat", "0.0.1=1", "0.0.2=1")
        running.until(follower, r"goat: 0.0.1 takes 50.00 %")
    finally:
        follower.kill()
        follower.communicate()
    done = running.milkrun("logs", "goat")
    assert done.returncode == 0
    assert all(re.match(r"goat-0\.0\.[12]-\S+  ", line) for line in done.stdout.splitlines())


def test_an_instance_that_starts_while_logs_follow_joins_them(running):
    file = running.path / "deploy" / "goat.json"
    before = file.read_text()
    known = set(running.processes())
    follower = running.start("logs", "goat", "-f", "-n", "1")
    try:
        running.until(follower, r"goat-0\.0\.2-\S+  ")
        deploy = json.loads(before)
        deploy["version=0.0.2"]["replicas"] = 2
        file.write_text(json.dumps(deploy))
        running.commit("One more goat")
        text = running.until(follower, r"goat-0\.0\.2-(\S+)  goat-0\.0\.2-\1 ")
        assert text.split()[0] not in {name.split()[0] for name in known}
    finally:
        follower.kill()
        follower.communicate()
        file.write_text(before)
        running.commit("One goat less")
    running.eventually(lambda: len(running.processes()) == len(known))
    assert running.milkrun("status").returncode == 0


def test_doctor_finds_nothing_wrong(running):
    done = running.milkrun("doctor", "--json")
    assert done.returncode == 0, done.stdout
    verdicts = {one["verdict"] for one in json.loads(done.stdout)["findings"]}
    assert verdicts == {"ok"}


def test_load_accounts_for_each_request(running):
    done = running.milkrun("load", running.url, "--rate", "50", "--duration", "2s", "--json")
    assert done.returncode == 0, done.stdout
    figures = json.loads(done.stdout)
    assert (figures["sent"], figures["answered"], figures["failed"]) == (100, 100, 0)


def test_a_second_up_is_refused_and_says_who_runs(running):
    done = running.milkrun("up")
    assert done.returncode == 4
    assert f"pid {running.ups[0].pid}" in done.stderr
    assert "milkrun down" in done.stderr


def test_a_second_daemon_in_the_same_place_is_refused(running):
    done = running.milkrun("gitsync")
    assert done.returncode == 4
    assert f"pid {running.processes()['gitsync']}" in done.stderr
