"""Golden text: what a person reads, letter by letter."""

from __future__ import annotations

from textwrap import dedent

from msgspec.structs import replace

from milkrun.cli.explain import explain_lines
from milkrun.cli.view_text import status_lines, watch_lines, weights_lines
from milkrun.latency import bucket
from milkrun.model import CommitId, Figures, Health, Instance, InstanceId, Refusal
from milkrun.overview.explain import explain
from milkrun.overview.facts import Facts
from milkrun.overview.view import View, view


def seen(facts: Facts) -> View:
    return view(facts, registry="http://127.0.0.1:8500", now=1001.0)


def golden(text: str) -> list[str]:
    return dedent(text).strip("\n").split("\n")


def test_status_of_a_farm_in_order(farm: Facts):
    part = Instance(
        id=InstanceId("milkrun-agent-shed"),
        service="milkrun-agent",
        version="unversioned",
        address="127.0.0.1",
        port=0,
        health=Health.PASSING,
    )
    assert status_lines(seen(replace(farm, parts=[part]))) == golden(
        """
        dairy-farm: main at 4c1266d (generation 7), registry http://127.0.0.1:8500

        goat at 4c1266d: served by lb-goat-shed-8202 on 127.0.0.1:8202
          VERSION  WEIGHT     WANT   SERVED  OBSERVED  REQUESTS  FAILED  INSTANCES
            0.0.1      80  80.00 %  80.00 %   79.93 %     7,993       0  2 of 2 healthy
            0.0.2      20  20.00 %  20.00 %   20.07 %     2,007       1  1 of 1 healthy
          INSTANCE              ADDRESS         HEALTH   TRAFFIC  WHY
          goat-0.0.1-shed-8101  127.0.0.1:8101  passing  serving  -
          goat-0.0.1-shed-8102  127.0.0.1:8102  passing  serving  -
          goat-0.0.2-shed-8103  127.0.0.1:8103  passing  serving  -

        routers
          ROUTER             COMMIT   GEN  RELOADS  STATE    STATS
          lb-goat-shed-8202  4c1266d    7        0  in step  127.0.0.1:8404/monitor

        agents
          shed: 3 healthy

        parts
          PART                ADDRESS    STATE
          milkrun-agent-shed  127.0.0.1  alive
        """
    )


def test_status_ends_with_the_problems_and_the_next_thing_to_do(farm: Facts):
    assert farm.sync
    refusal = Refusal(file="deploy/goat.json", line=3, reason="a weight is a number", commit=CommitId("ab"))
    refused = replace(farm, sync=replace(farm.sync, refused=[refusal]))
    held = replace(refused, routers=[replace(refused.routers[0], held=["nobody is healthy"], generation=6)])
    assert status_lines(seen(held))[-4:] == golden(
        """
        problems
          deploy/goat.json:3: a weight is a number
          lb-goat-shed-8202 holds: nobody is healthy
        next: mend deploy/goat.json and commit; until then the registry keeps what it had
        """
    )


def test_weights_show_want_observed_and_each_router(farm: Facts):
    shown = seen(farm)
    assert weights_lines(shown, shown.services[0]) == golden(
        """
        goat at 4c1266d (generation 7), observed over 10,000 requests
          VERSION  WEIGHT     WANT   SERVED  OBSERVED  REQUESTS  FAILED  INSTANCES
            0.0.1      80  80.00 %  80.00 %   79.93 %     7,993       0  2 of 2 healthy
            0.0.2      20  20.00 %  20.00 %   20.07 %     2,007       1  1 of 1 healthy
        lb-goat-shed-8202 serves 4c1266d (generation 7), in step
        """
    )


def test_explain_is_a_chain_and_a_sentence(farm: Facts):
    assert explain_lines(explain(farm, "goat-0.0.2-shed-8103")) == golden(
        """
        goat-0.0.2-shed-8103 (version 0.0.2)
          git                commit 4c1266d asks for version 0.0.2 with weight 20 (20.00 %) and 1 running
          slot               goat/0.0.2/0, held by shed
          agent              healthy on shed, pid 9103
          registry           passing at 127.0.0.1:8103: GET /health: 200
          lb-goat-shed-8202  serving; its version gets 20.00 %
          => It gets traffic from lb-goat-shed-8202.
        """
    )


def test_a_long_reason_is_one_short_line(farm: Facts):
    goats = [replace(one, health=Health.CRITICAL, reason="x\n" * 200) for one in farm.instances["goat"]]
    lines = status_lines(seen(replace(farm, instances={"goat": goats})))
    assert max(len(line) for line in lines) < 400
    assert not any("\n" in line for line in lines)


def test_an_empty_registry_says_what_to_add():
    lines = status_lines(seen(Facts()))
    assert lines[0].startswith("no environment published: gitsync does not report")
    assert "no services yet: add services/NAME.toml and deploy/NAME.json, and commit" in lines


def test_on_a_small_screen_what_needs_a_person_stands_at_the_top(farm: Facts):
    router = replace(farm.routers[0], held=["git gives the traffic to 0.0.3, which has nobody to serve it"])
    small = watch_lines(seen(replace(farm, routers=[router])), 60, 8)
    assert len(small) == 8
    assert all(len(line) <= 60 for line in small)
    assert small[2:5] == [
        "problems",
        "  lb-goat-shed-8202 holds: git gives the traffic to 0.0.3, …",
        "next: milkrun explain goat",
    ]
    assert small[-1].startswith("... ")
    large = watch_lines(seen(farm), 200, 100)
    assert large == status_lines(seen(farm))


def test_a_usual_farm_fits_in_eighty_columns(farm: Facts):
    assert max(map(len, status_lines(seen(farm)))) <= 80


def test_one_service_shows_how_its_versions_answer(farm: Facts):
    figures = Figures(
        requests=110,
        failures=10,
        answers={"2xx": 100, "5xx": 10},
        bytes_in=5_400,
        bytes_out=73_512_345,
        latency={bucket(1_250): 60, bucket(94_000): 49, bucket(2_500_000): 2},
    )
    [report] = farm.routers
    traffic = replace(report.versions["0.0.2"], window=figures, in_flight=3)
    router = replace(report, versions={**report.versions, "0.0.2": traffic})

    lines = status_lines(seen(replace(farm, routers=[router])), closely=True)

    assert lines[6:9] == [
        "  VERSION     P50    P90    P99  2xx  5xx  IN FLIGHT      IN      OUT",
        "    0.0.1       -      -      -    0    0          0     0 B      0 B",
        "    0.0.2  1.2 ms  92 ms  2.5 s  100   10          3  5.4 kB  73.5 MB",
    ]
