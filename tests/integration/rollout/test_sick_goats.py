"""Bad versions in a real farm under load: each is taken back by itself, says why, and hurts nobody but by itself."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest
from farm import Farm

GOAT = """command = ["{python}", "apps/goat.py"]

[env]
DAIRY_MILKING_S = "0.1"
DAIRY_SICK = "0.0.4: errors 5%, 0.0.5: slow 50ms, 0.0.6: crash after 6s, 0.0.7: never healthy, \
0.0.8: hang on stop, 0.0.9: wrong answer, 0.0.10: errors 0.1%, 0.0.11: errors 5%"

[health]
interval_s = 0.2

[stop]
stop_limit_s = 1.0

[rollout]
steps = ["smoke", "weight 25%", "analyse 10s"]
bake_s = 1.0
healthy_limit_s = 30.0

[rollout.smoke]
path = "/milk"
contains = '"goat": {'

[rollout.analysis]
min_requests = 200
"""
RATE = 200
"""Requests a second; 50 of them go to the new version."""

HURT_AT_MOST = 0.01
TAKEN_BACK = 7


class Case:
    """A deploy under load: what `milkrun deploy` said, its receipt, and the ledger of those who asked for milk."""

    def __init__(self, farm: Farm, version: str, *options: str, rate: int = RATE) -> None:
        self.farm, self.version = farm, version
        self.before = farm.git("show", "HEAD:deploy/goat.json")
        url = f"http://127.0.0.1:{farm.goats}/milk"
        load = farm.start("load", url, "--rate", str(rate), "--duration", "10m", "--json")
        try:
            self.status = self.deployed(*options)
        finally:
            load.send_signal(signal.SIGINT)
            out, _ = load.communicate(timeout=60)
        self.ledger = json.loads(out[out.index("{") :])
        self.receipt = json.loads(farm.milkrun("rollout", "history", "goat", "--json").stdout)["history"][-1]
        assert self.receipt["version"] == version
        self.told()

    def deployed(self, *options: str) -> int:
        done = self.farm.milkrun("deploy", "goat", self.version, *options)
        print(f"\n{done.stderr}")
        return done.returncode

    @property
    def took_s(self) -> float:
        return self.receipt["ended"] - self.receipt["started"]

    def goats(self) -> list[str]:
        """The processes of this version."""
        return [name for name in self.farm.processes() if f"goat-{self.version}-" in name]

    def told(self) -> None:
        """For docs/figures.md."""
        failures = self.ledger["failures"] or "none failed"
        counts = {name: count["requests"] for name, count in self.receipt["requests"].items()}
        met = counts.get(self.version, 0)
        print(
            f"goat {self.version}: {self.receipt['outcome']} in {self.took_s:.1f} s; of the requests, "
            f"{100 * met / sum(counts.values()):.1f} % met it and {100 * self.receipt['hurt']:.3f} % failed by it\n"
            f"  ledger: {self.ledger['sent']:,} requests, {failures}\n  why: {self.receipt['reason'] or '-'}"
        )

    def taken_back(self, why: str) -> None:
        """It was taken back for this reason, everything is as before, and nothing of it runs."""
        assert (self.status, self.receipt["outcome"]) == (TAKEN_BACK, "taken-back")
        assert re.search(why, self.receipt["reason"])
        assert self.farm.git("show", "HEAD:deploy/goat.json") == self.before
        assert self.farm.git("status", "--porcelain") == ""
        assert self.goats() == []
        assert self.receipt["hurt"] <= HURT_AT_MOST
        self.nobody_else_failed()

    def nobody_else_failed(self) -> None:
        """The old version lost nothing, and nobody had an answer twice."""
        requests = self.receipt["requests"]
        assert [name for name, count in requests.items() if name != self.version and count["failures"]] == []
        assert self.ledger["duplicated"] == 0
        assert self.ledger["answered"] > 0


class Aborted(Case):
    """Taken back by hand, once it is compared."""

    def deployed(self, *options: str) -> int:
        assert self.farm.milkrun("deploy", "goat", self.version, "--no-wait", *options).returncode == 0
        self.farm.eventually(self.analysed)
        assert len(self.goats()) == 3
        assert self.farm.milkrun("rollout", "abort", "goat", "--reason", "enough seen").returncode == 0
        return self.farm.milkrun("rollout", "watch", "goat").returncode

    def analysed(self) -> bool:
        seen = json.loads(self.farm.milkrun("rollout", "status", "goat", "--json").stdout or "{}")
        steps = {step["name"]: step["state"] for step in seen.get("steps", [])}
        return seen.get("version") == self.version and steps.get("analyse 10s") == "now"


def settle(farm: Farm, settings: str) -> None:
    """From now on goats roll out as these settings say."""
    (farm.path / "services" / "goat.toml").write_text(settings)
    farm.commit("How goats roll out")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for all of them, one after the other: what one leaves behind, the next one meets."""
    made = Farm(tmp_path_factory.mktemp("sick") / "farm")
    settle(made, GOAT)
    try:
        made.up()
        yield made
    finally:
        made.end()


def test_one_that_is_never_healthy_meets_no_user(farm: Farm):
    settle(farm, GOAT.replace("healthy_limit_s = 30.0", "healthy_limit_s = 5.0"))
    case = Case(farm, "0.0.7")
    settle(farm, GOAT)
    case.taken_back(r"after 5 s it still waits for 3 of 3 instances of 0\.0\.7 to become healthy")
    assert "0.0.7" not in {share["version"] for share in case.ledger["shares"]}
    assert case.ledger["failures"] == {}


def test_one_that_answers_wrongly_meets_no_user(farm: Farm):
    case = Case(farm, "0.0.9")
    case.taken_back(r"answered without '\"goat\": {'")
    assert "0.0.9" not in {share["version"] for share in case.ledger["shares"]}
    assert case.ledger["failures"] == {}


def test_one_that_fails_5_percent_is_taken_back(farm: Farm):
    case = Case(farm, "0.0.4")
    case.taken_back(r"^failures: |requests of the new version failed")
    assert set(case.ledger["failures"]) == {"HTTP 500"}


def test_one_that_is_slower_by_half_is_taken_back(farm: Farm):
    case = Case(farm, "0.0.5")
    case.taken_back(r"^latency: .* surely slower")
    assert case.ledger["failures"] == {}


def test_one_that_crashes_after_a_time_is_taken_back(farm: Farm):
    case = Case(farm, "0.0.6")
    case.taken_back(r"restarts of new instances: [0-9]+")
    assert case.ledger["failed"] <= HURT_AT_MOST * case.ledger["sent"]


def test_one_that_hangs_on_stop_is_killed_and_nobody_meets_that(farm: Farm):
    case = Aborted(farm, "0.0.8")
    case.taken_back("enough seen")
    assert case.ledger["failures"] == {}


def test_5_percent_against_a_tenth_of_a_percent_hurts_at_most_one_user_in_a_hundred(farm: Farm):
    arrived = Case(farm, "0.0.10", "--strategy", "blue-green")
    assert (arrived.status, arrived.receipt["outcome"]) == (0, "done")
    assert set(arrived.ledger["failures"]) <= {"HTTP 500"}

    settle(farm, GOAT.replace("weight 25%", "weight 10%"))
    case = Case(farm, "0.0.11", rate=500)
    assert (case.status, case.receipt["outcome"]) == (TAKEN_BACK, "taken-back")
    assert re.search(r"^failures: |requests of the new version failed", case.receipt["reason"])
    assert case.farm.git("show", "HEAD:deploy/goat.json") == case.before
    assert set(case.ledger["failures"]) == {"HTTP 500"}  # each made by a goat that was told to
    assert case.ledger["failed"] <= HURT_AT_MOST * case.ledger["sent"]
    assert case.receipt["hurt"] <= HURT_AT_MOST
