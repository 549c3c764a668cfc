"""The page that Prometheus reads, read as Prometheus reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from milkrun.latency import bucket
from milkrun.model import Figures, RouterId, RouterReport, ServiceName, VersionName, VersionTraffic
from milkrun.router.metrics import page

V1 = VersionName("0.0.1")
TOTAL = Figures(
    requests=12,
    failures=2,
    answers={"2xx": 10, "5xx": 2},
    bytes_in=1_000,
    bytes_out=2_000,
    latency={bucket(900): 4, bucket(1_500): 5, bucket(70_000_000): 1},
)


def report(service: str = "goat", version: str = V1, **fields) -> RouterReport:
    traffic = VersionTraffic(share=7_500, in_flight=3, total=TOTAL)
    return RouterReport(
        router=RouterId("lb-goat"),
        service=ServiceName(service),
        host="shed",
        listen="",
        stats="",
        commit=None,
        generation=7,
        applied_at=0,
        catalog_index=1,
        versions={VersionName(version): traffic},
        **fields,
    )


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_each_figure_of_each_version():
    found = samples(page([report(reloads=4, unequal_since=990.0, alarms=["one"])], now=1000.0, silent_s=3.5))

    assert found["milkrun_requests_total", "goat", "0.0.1"] == 12
    assert found["milkrun_failures_total", "goat", "0.0.1"] == 2
    assert found["milkrun_answers_total", "5xx", "goat", "0.0.1"] == 2
    assert found["milkrun_request_bytes_total", "goat", "0.0.1"] == 1_000
    assert found["milkrun_answer_bytes_total", "goat", "0.0.1"] == 2_000
    assert found["milkrun_share_ratio", "goat", "0.0.1"] == 0.75
    assert found["milkrun_requests_in_flight", "goat", "0.0.1"] == 3
    assert found["milkrun_unequal_seconds", "goat"] == 10
    assert found["milkrun_generation", "goat"] == 7
    assert found["milkrun_alarms", "goat"] == 1
    assert found["milkrun_reloads_total",] == 4


def test_the_histogram_is_cumulative_and_ends_with_all_that_was_timed():
    found = samples(page([report()], now=1000.0, silent_s=3.5))
    steps = {
        le: found["milkrun_answer_seconds_bucket", le, "goat", "0.0.1"] for le in ("0.001", "0.002", "+Inf")
    }

    assert steps == {"0.001": 4, "0.002": 9, "+Inf": 10}
    assert found["milkrun_answer_seconds_count", "goat", "0.0.1"] == 10


def test_services_stand_side_by_side_and_equal_is_zero():
    found = samples(page([report("goat"), report("farmer")], now=1000.0, silent_s=3.5))

    assert found["milkrun_requests_total", "farmer", "0.0.1"] == 12
    assert found["milkrun_unequal_seconds", "farmer"] == 0
    assert samples(page([], now=1000.0, silent_s=3.5)) == {
        ("milkrun_reloads_total",): 0,
        ("milkrun_registry_silent_seconds",): 3.5,
    }


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_text_stays_within_its_label(version):
    found = samples(page([report(version=version)], now=1000.0, silent_s=3.5))

    assert found["milkrun_requests_total", "goat", version] == 12
